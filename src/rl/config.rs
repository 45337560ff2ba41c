//! Settings as JSON: what is given is laid over the defaults, and what is unknown is refused.
//!
//! Invariant: a key that the algorithm does not have is an error with the nearest key, never ignored. Left out: what
//! values mean, which each algorithm checks.

use super::error::{Error, Result, nearest};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// `defaults`, with what `json` gives in place.
pub(super) fn parse<C: Serialize + DeserializeOwned>(
    algorithm: &'static str,
    defaults: C,
    json: &str,
) -> Result<C> {
    let whole = |why: String| Error::BadValue {
        algorithm,
        key: "(all)".to_owned(),
        why,
    };
    let given: Map<String, Value> =
        serde_json::from_str(json).map_err(|error| whole(format!("is no JSON object: {error}")))?;
    let defaults = serde_json::to_value(defaults).map_err(|error| whole(error.to_string()))?;
    let Value::Object(mut all) = defaults else {
        return Err(whole("the defaults are no object".to_owned()));
    };
    let known: Vec<String> = all.keys().cloned().collect();
    for (key, value) in given {
        if !all.contains_key(&key) {
            return Err(Error::UnknownKey {
                algorithm,
                nearest: nearest(&key, known.iter().map(String::as_str)),
                key,
                known,
            });
        }
        // Laid over one by one, so that an error names its key.
        let before = all.insert(key.clone(), value);
        if let Err(error) = serde_json::from_value::<C>(Value::Object(all.clone())) {
            return Err(Error::BadValue {
                algorithm,
                key,
                why: format!("{error}; its default is {}", before.unwrap_or_default()),
            });
        }
    }
    serde_json::from_value(Value::Object(all)).map_err(|error| whole(error.to_string()))
}

/// All settings as JSON.
pub(super) fn show<C: Serialize>(config: &C) -> String {
    serde_json::to_string(config).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
}

/// Refuses a value unless it is good.
pub(super) fn require(
    algorithm: &'static str,
    key: &str,
    good: bool,
    why: impl FnOnce() -> String,
) -> Result<()> {
    if good {
        return Ok(());
    }
    Err(Error::BadValue {
        algorithm,
        key: key.to_owned(),
        why: why(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rl::ppo::Config;

    fn refused(json: &str) -> Error {
        parse("PPO", Config::default(), json).expect_err("refused")
    }

    #[test]
    fn given_settings_lie_over_the_defaults() {
        let config = parse("PPO", Config::default(), r#"{"gamma": 0.9, "clip": null}"#).unwrap();
        assert_eq!((config.gamma, config.clip), (0.9, None));
        assert_eq!(config.num_envs, Config::default().num_envs);
        assert_eq!(
            parse("PPO", Config::default(), &show(&config)).unwrap(),
            config
        );
    }

    #[test]
    fn unknown_keys_and_bad_values_are_refused_by_name() {
        let Error::UnknownKey { key, nearest, .. } = refused(r#"{"lamda": 1}"#) else {
            panic!("an unknown key");
        };
        assert_eq!(
            (key.as_str(), nearest.as_deref()),
            ("lamda", Some("lambda"))
        );
        assert!(
            matches!(refused(r#"{"epochs": "many"}"#), Error::BadValue { key, .. } if key == "epochs")
        );
        assert!(matches!(refused("[1]"), Error::BadValue { .. }));
    }
}
