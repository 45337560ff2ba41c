//! What ran, in the cluster's records.
//!
//! Invariant: a job is recorded as running only while its driver is connected. After a restart of the head, or where another launcher took over, those that were
//! running have a while to call again, and are recorded as failed if they do not. At most [`KEPT`] are kept. Left out: what records are (`control`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::message::{Past, short};
use crate::base::NodeId;
use crate::control::records::{self, Job, JobId, JobState};
use crate::control::{Control, ControlError, Expect};
use crate::link::LinkError;

/// So many jobs are remembered.
const KEPT: usize = 256;
/// So many are told.
const TOLD: usize = 20;
/// So long has a job to call a head that was started again.
const CALLS: Duration = Duration::from_secs(15);
/// A write takes no longer, or is given up and said.
const WITHIN: Duration = Duration::from_secs(5);

/// See the module.
pub struct Records {
    control: Arc<dyn Control>,
    jobs: BTreeMap<u64, Job>,
    /// Jobs that ran when the records were opened, and have not been heard of yet; until when that is in order.
    unheard: BTreeSet<u64>,
    until: Instant,
}

impl Records {
    /// Reads what is there.
    pub fn open(control: Arc<dyn Control>) -> Result<Records, ControlError> {
        let (jobs, _) = records::list::<Job>(&*control, WITHIN)?;
        let jobs: BTreeMap<u64, Job> = jobs.into_iter().map(|job| (job.id.0, job)).collect();
        let running = jobs.values().filter(|j| j.state == JobState::Running);
        Ok(Records {
            unheard: running.map(|j| j.id.0).collect(),
            until: Instant::now() + CALLS,
            control,
            jobs,
        })
    }

    /// Records as failed what has not called in time.
    pub fn settle(&mut self) {
        if self.unheard.is_empty() || Instant::now() < self.until {
            return;
        }
        for job in std::mem::take(&mut self.unheard) {
            let why = "the launcher that leads was started again, and it did not call since";
            self.change(job, JobState::Failed(why.to_owned()));
        }
    }

    fn write(&self, job: &Job) {
        if let Err(e) = records::put(&*self.control, job, Expect::Any, None, WITHIN) {
            eprintln!("mobula: job {} is not recorded: {e}", job.id);
        }
    }

    fn change(&mut self, job: u64, state: JobState) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.state = state;
            let job = job.clone();
            self.write(&job);
        }
    }

    /// A job began, or called again.
    pub fn begin(&mut self, driver: NodeId, mut args: Vec<String>, executable: [u8; 32]) {
        self.unheard.remove(&driver.get());
        if let Some(known) = self.jobs.get(&driver.get()) {
            if known.state != JobState::Running {
                self.change(driver.get(), JobState::Running);
            }
            return;
        }
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        // A record is bounded.
        args.truncate(64);
        args.iter_mut()
            .for_each(|arg| *arg = short(arg).chars().take(1000).collect());
        let id = JobId(driver.get());
        let job = Job {
            id,
            executable,
            args,
            driver,
            submitted: now.as_millis() as u64,
            state: JobState::Running,
        };
        self.write(&job);
        self.jobs.insert(id.0, job);
        while self.jobs.len() > KEPT {
            let Some(oldest) = self.jobs.values().min_by_key(|j| j.submitted).map(|j| j.id) else {
                break;
            };
            self.jobs.remove(&oldest.0);
            if let Err(e) = records::delete::<Job>(&*self.control, &oldest, Expect::Any, WITHIN) {
                eprintln!("mobula: job {oldest} is not removed from the records: {e}");
            }
        }
    }

    /// A job's driver is gone.
    pub fn end(&mut self, driver: NodeId, why: &LinkError) {
        let running = self
            .jobs
            .get(&driver.get())
            .is_some_and(|j| j.state == JobState::Running);
        if running {
            let state = match why {
                LinkError::Left(_) => JobState::Ended(0),
                why => JobState::Failed(format!("its driver was lost: {why}")),
            };
            self.change(driver.get(), state);
        }
    }

    /// The latest, newest first.
    pub fn latest(&self) -> Vec<Past> {
        let mut jobs: Vec<&Job> = self.jobs.values().collect();
        jobs.sort_by_key(|j| std::cmp::Reverse(j.submitted));
        let past = |j: &&Job| Past {
            job: j.id.0,
            args: j.args.clone(),
            submitted: j.submitted,
            state: match &j.state {
                JobState::Running => "running".to_owned(),
                JobState::Ended(_) => "ended".to_owned(),
                JobState::Failed(why) => short(&format!("failed: {why}")),
            },
        };
        jobs.iter().take(TOLD).map(past).collect()
    }
}
