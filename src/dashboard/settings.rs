//! What a dashboard may be told.
//!
//! **Invariant:** what can be reached from other machines has a token, or is refused. **Left out:** where the settings
//! come from.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::{Error, Result};

/// The port that is tried first where none is given.
pub const USUAL_PORT: u16 = 8265;

/// The shortest token.
pub const SHORTEST_TOKEN: usize = 16;

const LONGEST_TOKEN: usize = 256;

/// Settings of a dashboard.
#[derive(Clone)]
#[must_use = "settings do nothing before the server starts"]
pub struct Settings {
    pub(super) address: Option<SocketAddr>,
    pub(super) token: Option<String>,
    pub(super) patience: Duration,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("address", &self.address)
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("patience", &self.patience)
            .finish()
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            address: None,
            token: None,
            patience: Duration::from_secs(15),
        }
    }
}

impl Settings {
    /// On this machine only, at port 8265 or, if that is taken, at a free one.
    pub fn new() -> Settings {
        Settings::default()
    }

    /// At this address. Port 0 takes a free one. Whatever is not a loopback address needs a [`token`](Settings::token).
    pub fn address(mut self, address: SocketAddr) -> Settings {
        self.address = Some(address);
        self
    }

    /// Who asks must know this: as a bearer token, or once in the browser. 16 to 256 letters, digits and `-._~+/=`.
    pub fn token(mut self, token: impl Into<String>) -> Settings {
        self.token = Some(token.into());
        self
    }

    /// How long a connection may stand still in the middle of a request or an answer before it is cut. Default: 15 s.
    pub fn patience(mut self, patience: Duration) -> Settings {
        self.patience = patience;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        if let Some(token) = &self.token {
            let why = if token.len() < SHORTEST_TOKEN {
                format!(
                    "has {} letters, which can be guessed: give at least {SHORTEST_TOKEN}",
                    token.len()
                )
            } else if token.len() > LONGEST_TOKEN {
                format!("has {} letters: give at most {LONGEST_TOKEN}", token.len())
            } else if !token.bytes().all(plain) {
                "has letters that a cookie cannot carry: use letters, digits and -._~+/=".into()
            } else {
                return Ok(());
            };
            return Err(Error::Config {
                setting: "dashboard_token",
                why,
            });
        }
        match self.address {
            Some(address) if !address.ip().is_loopback() => Err(Error::Config {
                setting: "dashboard_addr",
                why: format!(
                    "{address} can be reached from other machines: give dashboard_token too, or an address such as 127.0.0.1:{USUAL_PORT}"
                ),
            }),
            _ => Ok(()),
        }
    }
}

fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_need_a_token() {
        let open = "0.0.0.0:0".parse().unwrap();
        let e = Settings::new().address(open).check().unwrap_err();
        assert!(e.to_string().contains("dashboard_token"), "{e}");
        let long = "0123456789abcdef";
        assert!(Settings::new().address(open).token(long).check().is_ok());
        assert!(
            Settings::new()
                .address(open)
                .token(&long[1..])
                .check()
                .is_err()
        );
        assert!(Settings::new().token("0123456789 abcdef").check().is_err());
        assert!(
            Settings::new()
                .address("[::1]:0".parse().unwrap())
                .check()
                .is_ok()
        );
    }

    #[test]
    fn the_token_is_not_shown() {
        let settings = Settings::new().token("0123456789abcdef");
        assert!(!format!("{settings:?}").contains("0123"));
    }
}
