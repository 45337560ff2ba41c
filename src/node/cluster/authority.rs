//! The authority of a cluster: the certificate, the key and the token by which nodes are let in.
//!
//! | it is kept | who lets others in | after the loss of that node |
//! |---|---|---|
//! | in memory | the first node | the cluster ends |
//! | in a folder | the first node, again when it is started with the folder | nobody joins until it is back |
//! | with the records, on etcd | every node that reaches them | any other lets newcomers in |
//!
//! Invariant: one cluster has one authority; who finds two is told both places. Left out: certificates (`link`).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::base::Error;
use crate::control::records::{self, Authority};
use crate::control::{Control, ControlError, Expect};
use crate::link::Ca;

/// How long the records may take for an answer.
const WITHIN: Duration = Duration::from_secs(3);

fn failed(why: impl ToString) -> Error {
    Error::Cluster {
        why: Arc::from(why.to_string()),
    }
}

/// The one kept in this folder.
fn in_folder(folder: &Path) -> Result<Option<Ca>, Error> {
    let path = folder.join("ca.pem");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ca::from_pem(&text)
            .map(Some)
            .map_err(|e| failed(format!("{}: {e}", path.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(format!("cannot read {}: {e}", path.display()))),
    }
}

fn keep_in_folder(folder: &Path, ca: &Ca) -> Result<(), Error> {
    let path = folder.join("ca.pem");
    let failed = |what: &str, e: std::io::Error| failed(format!("{what} {}: {e}", path.display()));
    std::fs::create_dir_all(folder).map_err(|e| failed("cannot make the folder of", e))?;
    write_secret(&path, ca.to_pem().as_bytes()).map_err(|e| failed("cannot write", e))
}

/// The authority kept in this folder, made if there is none.
pub fn authority(folder: &Path) -> Result<Ca, Error> {
    if let Some(ca) = in_folder(folder)? {
        return Ok(ca);
    }
    let ca = Ca::new().map_err(failed)?;
    keep_in_folder(folder, &ca)?;
    Ok(ca)
}

/// The authority kept with the records of nodes, or of launchers, if there is one.
pub(in crate::node) fn on_record(control: &dyn Control, whose: &str) -> Result<Option<Ca>, Error> {
    let at = |why: String| failed(format!("the records at {}: {why}", control.address()));
    let found = records::get::<Authority>(control, &whose.to_owned(), WITHIN)
        .map_err(|e| at(e.to_string()))?;
    found
        .map(|(kept, _)| Ca::from_pem(&kept.secret).map_err(|e| at(e.to_string())))
        .transpose()
}

/// The authority kept with the records, and in a folder too if there is one. Made if there is none.
pub(in crate::node) fn shared(
    control: &dyn Control,
    whose: &str,
    folder: Option<&Path>,
) -> Result<Ca, Error> {
    let own = folder.map(in_folder).transpose()?.flatten();
    let mine = match &own {
        Some(ca) => Ca::from_pem(&ca.to_pem()),
        None => Ca::new(),
    };
    let mine = mine.map_err(failed)?;
    let record = Authority {
        whose: whose.to_owned(),
        secret: mine.to_pem(),
    };
    let ca = match records::put(control, &record, Expect::Absent, None, WITHIN) {
        Ok(_) => mine,
        Err(ControlError::Conflict { .. }) => on_record(control, whose)?
            .ok_or_else(|| failed("the authority on record was removed this moment"))?,
        Err(e) => {
            let why = format!("the records at {}: {e}", control.address());
            return Err(failed(why));
        }
    };
    match (own, folder) {
        (Some(own), Some(folder)) if own.token() != ca.token() => Err(failed(format!(
            "{} is of another cluster than the records at {}: take another folder, or another prefix on etcd",
            folder.join("ca.pem").display(),
            control.address()
        ))),
        (None, Some(folder)) => keep_in_folder(folder, &ca).map(|()| ca),
        _ => Ok(ca),
    }
}

/// Writes a file that nobody else may read, whole or not at all.
pub(in crate::node) fn write_secret(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let new = path.with_extension("new");
    let _ = std::fs::remove_file(&new);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cluster_has_one_authority() {
        let control = crate::control::open("memory:").unwrap();
        let control = &*control;
        let folder = tempfile(1);
        assert!(on_record(control, "nodes").unwrap().is_none());
        let ca = shared(control, "nodes", Some(&folder)).unwrap();
        let is = |other: &Ca| other.token() == ca.token();
        assert!(is(&authority(&folder).unwrap()), "kept in the folder");
        assert!(is(&on_record(control, "nodes").unwrap().unwrap()));
        assert!(is(&shared(control, "nodes", Some(&folder)).unwrap()));
        assert!(is(&shared(control, "nodes", None).unwrap()));
        assert!(!is(&shared(control, "launchers", None).unwrap()));
        // A machine that never was of it gets it into its folder; one of another is refused.
        let new = tempfile(2);
        assert!(is(&shared(control, "nodes", Some(&new)).unwrap()));
        assert!(is(&authority(&new).unwrap()));
        let other = tempfile(3);
        authority(&other).unwrap();
        let why = shared(control, "nodes", Some(&other))
            .unwrap_err()
            .to_string();
        assert!(why.contains("ca.pem is of another cluster"), "{why}");
        for folder in [folder, new, other] {
            std::fs::remove_dir_all(folder).unwrap();
        }
    }

    fn tempfile(n: u32) -> std::path::PathBuf {
        let name = format!("mobula-authority-{}-{n}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        folder
    }
}
