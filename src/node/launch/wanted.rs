//! What a program wants of launchers, from its environment.
//!
//! Invariant: what cannot be understood is an error that names the variable. Left out: what its own settings say.

use std::time::Duration;

use crate::base::{Demand, Error, Units};
use crate::core::jobs::Ask;

/// What the program wants, from the environment.
pub struct Wanted {
    /// On so many machines.
    pub nodes: Option<usize>,
    /// CPUs on each.
    pub cpus: Option<f64>,
    /// GPUs on each.
    pub gpus: Option<u32>,
    /// Other resources on each.
    pub custom: Vec<(String, f64)>,
    /// How long to wait for them.
    pub patience: Duration,
}

fn variable<T: std::str::FromStr>(name: &'static str) -> Result<Option<T>, Error>
where
    T::Err: std::fmt::Display,
{
    let Ok(text) = std::env::var(name) else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|e| Error::Config {
        setting: name,
        why: format!("\"{text}\": {e}"),
    })
}

/// Amounts of resources: `name=amount,name=amount`.
pub fn amounts(setting: &'static str, text: &str) -> Result<Vec<(String, f64)>, Error> {
    let one = |pair: &str| {
        let parsed = pair
            .split_once('=')
            .and_then(|(name, amount)| Some((name.trim().to_owned(), amount.trim().parse().ok()?)));
        parsed.ok_or_else(|| Error::Config {
            setting,
            why: format!("\"{pair}\" is none: say name=amount, with commas between them"),
        })
    };
    text.split(',')
        .filter(|pair| !pair.is_empty())
        .map(one)
        .collect()
}

impl Wanted {
    /// Reads it.
    pub fn read() -> Result<Wanted, Error> {
        let custom = std::env::var("MOBULA_RUN_RESOURCES").unwrap_or_default();
        Ok(Wanted {
            nodes: variable("MOBULA_RUN_NODES")?,
            cpus: variable("MOBULA_RUN_CPUS")?,
            gpus: variable("MOBULA_RUN_GPUS")?,
            custom: amounts("MOBULA_RUN_RESOURCES", &custom)?,
            patience: Duration::try_from_secs_f64(variable("MOBULA_RUN_WAIT")?.unwrap_or(10.0))
                .map_err(|e| Error::Config {
                    setting: "MOBULA_RUN_WAIT",
                    why: e.to_string(),
                })?,
        })
    }

    /// What to ask a launcher for. `cpus`: what the program's own settings say.
    pub fn ask(&self, cpus: Option<f64>) -> Result<Ask, Error> {
        let cpus = self.cpus.or(cpus);
        if cpus.is_none() && self.gpus.is_none() && self.custom.is_empty() {
            return Ok(Ask::Rest);
        }
        let units = |amount: f64| {
            Units::from_f64(amount).map_err(|e| Error::Config {
                setting: "MOBULA_RUN_CPUS",
                why: e.to_string(),
            })
        };
        let mut demand = Demand::cpu_only(units(cpus.unwrap_or(1.0))?)
            .with_gpu(Units::whole(self.gpus.unwrap_or(0).into()));
        for (name, amount) in &self.custom {
            demand = demand.with_custom(name, units(*amount)?);
        }
        Ok(Ask::Exactly(demand))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_or_refused_by_name() {
        assert_eq!(amounts("X", "").unwrap(), []);
        let read = amounts("X", "disk=4, tpu=0.5").unwrap();
        assert_eq!(read, [("disk".to_owned(), 4.0), ("tpu".to_owned(), 0.5)]);
        let why = amounts("MOBULA_RESOURCES", "disk").unwrap_err().to_string();
        assert!(
            why.contains("MOBULA_RESOURCES") && why.contains("\"disk\""),
            "{why}"
        );
    }

    #[test]
    fn who_says_nothing_gets_the_rest() {
        let mut wanted = Wanted {
            nodes: None,
            cpus: None,
            gpus: None,
            custom: Vec::new(),
            patience: Duration::ZERO,
        };
        assert_eq!(wanted.ask(None).unwrap(), Ask::Rest);
        let said = |ask: Ask| match ask {
            Ask::Exactly(demand) => demand.to_string(),
            Ask::Rest => "the rest".to_owned(),
        };
        assert_eq!(said(wanted.ask(Some(2.0)).unwrap()), "2 cpu");
        wanted.gpus = Some(1);
        assert_eq!(said(wanted.ask(None).unwrap()), "1 cpu, 1 gpu");
        wanted.cpus = Some(-1.0);
        assert!(wanted.ask(None).is_err());
    }
}
