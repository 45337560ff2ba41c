//! What ran, in the cluster's records.
//!
//! Invariant: a job is recorded as running only while its driver is connected; after a restart of the head, those that were
//! running are recorded as lost with it. At most [`KEPT`] are kept. Left out: what records are (`control`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::message::{Past, short};
use crate::base::NodeId;
use crate::control::records::{self, Job, JobId, JobState};
use crate::control::{Control, ControlError, Expect};
use crate::link::LinkError;

/// So many jobs are remembered.
const KEPT: usize = 256;
/// So many are told.
const TOLD: usize = 20;
/// A write takes no longer, or is given up and said.
const WITHIN: Duration = Duration::from_secs(5);

/// See the module.
pub struct Records {
    control: Arc<dyn Control>,
    jobs: BTreeMap<u64, Job>,
}

impl Records {
    /// Reads what is there.
    pub fn open(address: &str) -> Result<Records, ControlError> {
        let control = crate::control::open(address)?;
        let (jobs, _) = records::list::<Job>(&*control, WITHIN)?;
        let mut all = Records {
            control,
            jobs: jobs.into_iter().map(|job| (job.id.0, job)).collect(),
        };
        let running: Vec<u64> = all
            .jobs
            .values()
            .filter(|j| j.state == JobState::Running)
            .map(|j| j.id.0)
            .collect();
        for job in running {
            all.change(
                job,
                JobState::Failed("the head's launcher was started again".to_owned()),
            );
        }
        Ok(all)
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

    /// A job began.
    pub fn begin(&mut self, driver: NodeId, mut args: Vec<String>, executable: [u8; 32]) {
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
