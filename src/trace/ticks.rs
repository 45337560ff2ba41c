//! The clock of events: the processor's own counter where it runs evenly, else the system's monotonic clock.
//!
//! A tick costs about as much as a load that misses the nearest cache. What a tick is worth is found out when a trace
//! is written, from two points far apart.
//!
//! Invariant: ticks of all threads, and of all processes of one machine, are on one scale, and go back by no more than what
//! the system itself lets cores differ; so who takes a difference takes 0 for what is less. Left out: clocks of other machines.

use std::time::{Duration, Instant};

/// Whether the processor's counter is to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    counter: bool,
}

impl Clock {
    /// The best clock that this machine has.
    pub fn best() -> Clock {
        Clock {
            counter: counter::is_even(),
        }
    }

    /// Now; never 0.
    #[inline]
    pub fn now(self) -> u64 {
        if self.counter {
            counter::read() | 1
        } else {
            system() | 1
        }
    }

    /// How the processes that share a memory tell each other which clock it has.
    pub fn code(self) -> u64 {
        u64::from(self.counter)
    }

    /// The clock that [`code`](Self::code) stands for.
    pub fn from_code(code: u64) -> Clock {
        Clock { counter: code == 1 }
    }
}

/// Nanoseconds of the system's monotonic clock, which is one for all processes.
pub fn system() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0)
}

/// What ticks are in time: a line through two points.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    origin: u64,
    nanos_per_tick: f64,
}

impl Scale {
    /// Time between the two points below which the line would be too steep to trust.
    const APART: Duration = Duration::from_millis(2);

    /// The scale of `clock`, whose `ticks` stood for `nanos` of the system's clock when recording began. Takes up to two
    /// milliseconds if that was just now.
    pub fn measure(clock: Clock, ticks: u64, nanos: u64) -> Scale {
        let (mut to, mut at) = (clock.now(), system());
        let deadline = Instant::now() + Scale::APART;
        while at.saturating_sub(nanos) < Scale::APART.as_nanos() as u64 && Instant::now() < deadline
        {
            std::hint::spin_loop();
            (to, at) = (clock.now(), system());
        }
        let (spent, passed) = (to.saturating_sub(ticks), at.saturating_sub(nanos));
        let nanos_per_tick = if spent == 0 || passed == 0 {
            1.0 // the memory claims nonsense: show ticks
        } else {
            passed as f64 / spent as f64
        };
        Scale {
            origin: ticks,
            nanos_per_tick,
        }
    }

    /// Nanoseconds since recording began; 0 for what claims to be older.
    pub fn nanos(&self, ticks: u64) -> u64 {
        self.length(ticks.saturating_sub(self.origin))
    }

    /// How long so many ticks are, in nanoseconds.
    pub fn length(&self, ticks: u64) -> u64 {
        // Some years at most: what claims to be longer must not overflow when it is added to.
        ((ticks as f64 * self.nanos_per_tick) as u64).min(1 << 60)
    }

    /// How many ticks so many nanoseconds are.
    pub fn ticks(&self, nanos: u64) -> u64 {
        (nanos as f64 / self.nanos_per_tick) as u64
    }
}

#[cfg(target_arch = "x86_64")]
mod counter {
    /// Where Linux says which clocks it found usable; the counter is one only as long as no two cores disagreed about it.
    const USABLE: &str = "/sys/devices/system/clocksource/clocksource0/available_clocksource";

    /// Whether the counter runs at one speed whatever the processor does, on all of its cores.
    pub fn is_even() -> bool {
        use std::arch::x86_64::__cpuid;
        static EVEN: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        #[allow(unused_unsafe, reason = "safe in newer standard libraries")]
        *EVEN.get_or_init(|| {
            // SAFETY: every x86-64 has the instruction; leaf 0x8000_0000 says which leaves there are.
            let invariant = unsafe {
                __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & (1 << 8) != 0
            };
            invariant && is_usable(std::fs::read_to_string(USABLE).ok().as_deref())
        })
    }

    /// Whether the counter is among these clocks; where nobody says, the processor's word is taken.
    pub fn is_usable(clocks: Option<&str>) -> bool {
        clocks.is_none_or(|all| all.split_whitespace().any(|clock| clock == "tsc"))
    }

    #[inline]
    pub fn read() -> u64 {
        // SAFETY: reads a counter that every x86-64 has and that Linux leaves readable.
        unsafe { std::arch::x86_64::_rdtsc() }
    }
}

#[cfg(target_arch = "aarch64")]
mod counter {
    /// The architecture promises it.
    pub fn is_even() -> bool {
        true
    }

    #[inline]
    pub fn read() -> u64 {
        let ticks: u64;
        // SAFETY: reads the virtual counter, which Linux leaves readable, and touches nothing else.
        unsafe {
            std::arch::asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack, preserves_flags));
        }
        ticks
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod counter {
    pub fn is_even() -> bool {
        false
    }

    pub fn read() -> u64 {
        super::system()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_turns_ticks_into_the_time_that_passed() {
        for clock in [Clock::best(), Clock::from_code(0)] {
            let (ticks, nanos) = (clock.now(), system());
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(5) {
                std::hint::spin_loop();
            }
            let (now, passed) = (clock.now(), system() - nanos);
            let scale = Scale::measure(clock, ticks, nanos);
            let told = scale.nanos(now);
            let error = told.abs_diff(passed) as f64 / passed as f64;
            assert!(error < 0.05, "{told} ns told, {passed} ns passed");
            assert_eq!(scale.nanos(ticks), 0);
            assert_eq!(scale.nanos(0), 0);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_counter_that_the_system_gave_up_is_not_used() {
        assert!(counter::is_usable(Some("tsc kvm-clock hpet\n")));
        assert!(!counter::is_usable(Some("hpet acpi_pm\n")));
        assert!(counter::is_usable(None));
    }

    #[test]
    fn a_program_may_run_for_a_year() {
        let scale = Scale {
            origin: 1 << 50,
            nanos_per_tick: 0.5,
        };
        let year = 365 * 24 * 3600 * 1_000_000_000;
        assert_eq!(scale.nanos(scale.origin + 2 * year), year);
    }

    #[test]
    fn a_claimed_beginning_in_the_future_gives_a_scale_all_the_same() {
        let clock = Clock::best();
        let scale = Scale::measure(clock, u64::MAX, u64::MAX);
        assert_eq!(scale.nanos(clock.now()), 0);
    }
}
