//! A network of namespaces on this machine: a node's machine is a namespace with one address, and all hang on one switch.
//!
//! The switch is a bridge in a namespace of its own. Delay and loss are the kernel's (`tc netem`); a kernel without it gets
//! a [`Wire`](super::wire::Wire) of the test's own instead of bridge and veth pairs.
//!
//! Invariant: whatever was made is removed with the guard, and what an ended run left behind by the next one; no address
//! exists outside the namespaces. Left out: IPv6.

use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::wire::Wire;

const PREFIX: &str = "mobula-test";

/// How packets fare.
#[derive(Clone, Copy)]
pub struct Weather {
    /// From one machine to another, one way.
    pub delay_ms: u64,
    /// Of 1,000 packets so many are lost, each way.
    pub loss: u32,
}

/// The namespaces, one per machine; machine 0 is the head's.
pub struct Network {
    name: String,
    machines: usize,
    _wire: Option<Wire>,
}

/// Runs a command; what it printed, if it failed.
fn run(words: &str) -> Result<Output, String> {
    let mut parts = words.split(' ');
    let program = parts.next().expect("a program");
    let output = Command::new(program)
        .args(parts)
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(output),
        Ok(output) => Err(format!(
            "`{words}`: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(e) => Err(format!("`{words}`: {e}")),
    }
}

/// A machine's address.
pub fn address(machine: usize) -> String {
    format!("10.77.0.{}", machine + 1)
}

impl Network {
    /// So many machines; or why there can be none.
    pub fn new(machines: usize, weather: Option<Weather>) -> Result<Network, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        sweep();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut network = Network {
            name: format!("{PREFIX}-{}-{number}", std::process::id()),
            machines,
            _wire: None,
        };
        // From here on the guard removes what there is, also if the rest fails.
        for machine in 0..machines {
            run(&format!("ip netns add {}", network.namespace(machine)))?;
        }
        let switched = match weather {
            None => network.switch(),
            Some(weather) => network.switch().and_then(|()| network.worsen(weather)),
        };
        match (switched, weather) {
            (Ok(()), _) => {}
            (Err(why), Some(weather)) if why.contains("qdisc kind is unknown") => {
                println!(
                    "this kernel has no netem ({why}): delay and loss are made by a wire of the test's own"
                );
                for machine in 0..machines {
                    let _ = run(&format!(
                        "ip -n {} link del eth0",
                        network.namespace(machine)
                    ));
                }
                let namespaces: Vec<String> = (0..machines).map(|m| network.namespace(m)).collect();
                network._wire = Some(Wire::new(&namespaces, weather)?);
            }
            (Err(why), _) => return Err(why),
        }
        for machine in 0..machines {
            let (at, addr) = (network.namespace(machine), address(machine));
            run(&format!("ip -n {at} addr add {addr}/24 dev eth0"))?;
            run(&format!("ip -n {at} link set lo up"))?;
            run(&format!("ip -n {at} link set eth0 up"))?;
        }
        Ok(network)
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn namespace(&self, machine: usize) -> String {
        Machines(self.name.clone()).namespace(machine)
    }

    fn switch(&self) -> Result<(), String> {
        let hub = format!("{}-hub", self.name);
        run(&format!("ip netns add {hub}"))?;
        run(&format!("ip -n {hub} link add br0 type bridge"))?;
        run(&format!("ip -n {hub} link set br0 up"))?;
        for machine in 0..self.machines {
            let at = self.namespace(machine);
            run(&format!(
                "ip link add eth0 netns {at} type veth peer name p{machine} netns {hub}"
            ))?;
            run(&format!("ip -n {hub} link set p{machine} master br0"))?;
            run(&format!("ip -n {hub} link set p{machine} up"))?;
        }
        Ok(())
    }

    fn worsen(&self, weather: Weather) -> Result<(), String> {
        for machine in 0..self.machines {
            let at = self.namespace(machine);
            let (delay, loss) = (weather.delay_ms, f64::from(weather.loss) / 10.0);
            run(&format!(
                "tc -n {at} qdisc add dev eth0 root netem limit 100000 delay {delay}ms loss {loss}%"
            ))?;
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// What a process inside needs to know of the network.
pub struct Machines(String);

/// Which way nothing goes any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Neither.
    Both,
    /// Nothing reaches the machine; what it says is heard.
    In,
    /// Nothing leaves the machine, and it hears the others.
    Out,
}

/// Nobody's: what is sent there goes out, and nobody takes it.
const NOWHERE: &str = "02:00:00:00:00:01";

impl Machines {
    /// The machines of a network that another process made.
    pub fn of(network: &str) -> Machines {
        Machines(network.to_owned())
    }

    /// The namespace that is a machine.
    pub fn namespace(&self, machine: usize) -> String {
        format!("{}-{machine}", self.0)
    }

    /// Runs on that machine.
    pub fn on(&self, machine: usize, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace(machine)])
            .arg(program)
            .stdin(Stdio::null());
        command
    }

    /// Pulls a machine's cable.
    pub fn cut(&self, machine: usize) {
        let hub = format!("{}-hub", self.0);
        run(&format!("ip -n {hub} link set p{machine} down")).expect("the cable is there");
    }

    /// Plugs it in again.
    pub fn mend(&self, machine: usize) {
        let hub = format!("{}-hub", self.0);
        run(&format!("ip -n {hub} link set p{machine} up")).expect("the cable is there");
    }

    /// Cuts a machine off from so many others, 0 to `others`: by its cable, or by having the senders write to nobody.
    pub fn cut_off(&self, machine: usize, others: usize, way: Way) {
        if way == Way::Both {
            return self.cut(machine);
        }
        for (from, to) in pairs(machine, others, way) {
            self.divert(from, to);
        }
    }

    /// Parts machines: nothing goes from one side to the other.
    pub fn split(&self, ones: &[usize], others: &[usize]) {
        for (one, other) in between(ones, others) {
            self.divert(one, other);
            self.divert(other, one);
        }
    }

    /// Ends what [`split`](Machines::split) began.
    pub fn join(&self, ones: &[usize], others: &[usize]) {
        for (one, other) in between(ones, others) {
            self.direct(one, other);
            self.direct(other, one);
        }
    }

    fn divert(&self, from: usize, to: usize) {
        let (at, to) = (self.namespace(from), address(to));
        let nowhere = format!("lladdr {NOWHERE} dev eth0 nud permanent");
        run(&format!("ip -n {at} neigh replace {to} {nowhere}")).expect("the device is there");
    }

    fn direct(&self, from: usize, to: usize) {
        let (at, to) = (self.namespace(from), address(to));
        run(&format!("ip -n {at} neigh del {to} dev eth0")).expect("the entry is there");
    }

    /// Ends what [`cut_off`](Machines::cut_off) began.
    pub fn reach_again(&self, machine: usize, others: usize, way: Way) {
        if way == Way::Both {
            return self.mend(machine);
        }
        for (from, to) in pairs(machine, others, way) {
            self.direct(from, to);
        }
    }

    /// Lets no packet longer than this in or out of a machine.
    pub fn narrow(&self, machine: usize, mtu: u32) {
        let at = self.namespace(machine);
        run(&format!("ip -n {at} link set eth0 mtu {mtu}")).expect("the device is there");
    }
}

/// Who sends to whom, of a machine and the others, one way.
fn pairs(machine: usize, others: usize, way: Way) -> impl Iterator<Item = (usize, usize)> {
    let others = (0..=others).filter(move |other| *other != machine);
    others.map(move |other| match way {
        Way::In => (other, machine),
        _ => (machine, other),
    })
}

fn between<'a>(ones: &'a [usize], others: &'a [usize]) -> impl Iterator<Item = (usize, usize)> {
    ones.iter()
        .flat_map(|one| others.iter().map(|other| (*one, *other)))
}

/// Removes the namespaces of a network, and whoever still runs in them.
fn remove(name: &str) {
    let Ok(all) = run("ip netns list") else {
        return;
    };
    let all = String::from_utf8_lossy(&all.stdout).into_owned();
    let its = all.lines().filter_map(|line| line.split(' ').next());
    for namespace in its.filter(|n| n.strip_prefix(name).is_some_and(|n| n.starts_with('-'))) {
        if let Ok(pids) = run(&format!("ip netns pids {namespace}")) {
            for pid in String::from_utf8_lossy(&pids.stdout).split_whitespace() {
                let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
                if let Some(pid) = pid {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
        }
        let _ = run(&format!("ip netns del {namespace}"));
    }
}

/// Removes what tests left behind that were killed.
fn sweep() {
    let Ok(all) = run("ip netns list") else {
        return;
    };
    let all = String::from_utf8_lossy(&all.stdout).into_owned();
    for line in all.lines() {
        let mut parts = line.split(' ').next().unwrap_or("").rsplitn(3, '-');
        let (_, number, of) = (parts.next(), parts.next(), parts.next());
        let (Some(number), Some(of)) = (number, of) else {
            continue;
        };
        let maker = of.strip_prefix(PREFIX).and_then(|n| n.strip_prefix('-'));
        if let Some(maker) = maker
            && maker.parse::<u32>().is_ok()
            && !std::path::Path::new(&format!("/proc/{maker}")).exists()
        {
            remove(&format!("{of}-{number}"));
        }
    }
}
