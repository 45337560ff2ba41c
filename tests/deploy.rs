//! The examples of deployment are what those who read them accept, and say what the code understands.
//!
//! Invariant: a check that cannot be made here says so and passes. Left out: running them, which needs what they are for.

#[path = "../src/base/skip.rs"]
mod skip;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples/deploy")
        .join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(example(name)).expect("an example")
}

/// Runs a command; none if there is no such program.
fn run(program: &str, args: &[&str]) -> Option<Output> {
    match Command::new(program).args(args).output() {
        Ok(output) => Some(output),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            skip::skipped(format!("there is no {program}"));
            None
        }
        Err(e) => panic!("{program}: {e}"),
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A folder for Python's packages, filled once.
fn packages() -> Option<PathBuf> {
    let python = std::env::var("MOBULA_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kubernetes-validate");
    if folder.join("kubernetes_validate").exists() {
        return Some(folder);
    }
    let target = folder.display().to_string();
    let installed = run(
        &python,
        &[
            "-m",
            "pip",
            "install",
            "--quiet",
            "--target",
            &target,
            "kubernetes-validate==1.34.1",
        ],
    )?;
    if installed.status.success() {
        return Some(folder);
    }
    let why = said(&installed);
    skip::skipped(format!("kubernetes-validate cannot be installed: {why}"));
    let _ = std::fs::remove_dir_all(folder);
    None
}

/// Checks each document against the schema of its kind, strictly: a field that there is not is a mistake.
const VALIDATE: &str = r#"
import sys, yaml, kubernetes_validate
for document in yaml.safe_load_all(open(sys.argv[1])):
    kubernetes_validate.validate(document, '1.34', strict=True)
    print(document['kind'], document['metadata']['name'])
"#;

#[test]
fn kubernetes_accepts_the_manifest() {
    let Some(folder) = packages() else { return };
    let python = std::env::var("MOBULA_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let check = |path: &Path| {
        Command::new(&python)
            .args(["-c", VALIDATE])
            .arg(path)
            .env("PYTHONPATH", &folder)
            .output()
            .expect("python runs")
    };
    let checked = check(&example("kubernetes.yaml"));
    assert!(checked.status.success(), "{}", said(&checked));
    let kinds: Vec<String> = said(&checked).lines().map(str::to_owned).collect();
    assert_eq!(
        kinds,
        [
            "Service mobula-head",
            "Deployment mobula-head",
            "Deployment mobula-worker"
        ]
    );
    // The check can fail.
    let wrong = folder.join("wrong.yaml");
    std::fs::write(
        &wrong,
        text("kubernetes.yaml").replace("clusterIP:", "clusterAddress:"),
    )
    .unwrap();
    let checked = check(&wrong);
    assert!(
        !checked.status.success() && said(&checked).contains("clusterAddress"),
        "{}",
        said(&checked)
    );
}

#[test]
fn systemd_accepts_the_unit() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("systemd");
    std::fs::create_dir_all(&folder).unwrap();
    // It looks whether the command is there.
    let unit = text("mobula.service").replace("/usr/local/bin/mobula", "/bin/true");
    let verify = |name: &str, unit: &str| {
        let path = folder.join(name);
        std::fs::write(&path, unit).unwrap();
        run(
            "systemd-analyze",
            &["verify", "--man=no", &path.display().to_string()],
        )
    };
    let Some(checked) = verify("mobula.service", &unit) else {
        return;
    };
    assert!(
        checked.status.success() && !said(&checked).contains("mobula.service:"),
        "{}",
        said(&checked)
    );
    let wrong = unit.replace("KillMode=mixed", "KilMode=mixed");
    if let Some(checked) = verify("mobula-wrong.service", &wrong) {
        assert!(said(&checked).contains("KilMode"), "{}", said(&checked));
    }
}

#[test]
fn bash_reads_the_script() {
    let path = example("slurm.sh").display().to_string();
    let Some(checked) = run("bash", &["-n", &path]) else {
        return;
    };
    assert!(checked.status.success(), "{}", said(&checked));
}

/// A Slurm of one machine: `srun` runs two tasks, of which the second is a node.
#[test]
fn the_script_starts_a_head_and_a_node() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("slurm");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let tool = |name: &str, script: &str| {
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/bash\n{script}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(path, mode).unwrap();
    };
    tool("mobula", "echo made > \"$3/ca.pem\"; echo mobula1-token");
    // More than a pipe holds: whoever reads only the first line ends this with SIGPIPE.
    tool("scontrol", "echo localhost; seq 100000");
    tool(
        "srun",
        "shift; SLURMD_NODENAME=a SLURM_PROCID=0 \"$@\"; SLURMD_NODENAME=b SLURM_PROCID=1 \"$@\"",
    );
    tool(
        "app",
        "echo \"app $1 listen=$MOBULA_LISTEN join=$MOBULA_JOIN token=$MOBULA_TOKEN name=$MOBULA_NODE_NAME ca=$(cat $MOBULA_CLUSTER_DIR/ca.pem 2>/dev/null)\"",
    );
    let path = format!(
        "{}:{}",
        folder.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let mut command = Command::new("bash");
    command
        .arg(example("slurm.sh"))
        .arg(folder.join("app"))
        .arg("x y")
        .env("PATH", path);
    command
        .env("SLURM_JOB_ID", "7")
        .env("SLURM_JOB_NODELIST", "l")
        .env("SLURM_SUBMIT_DIR", &folder);
    let output = match command.output() {
        Ok(output) => output,
        Err(e) => return skip::skipped(format!("bash cannot be run: {e}")),
    };
    let out = said(&output);
    assert!(output.status.success(), "{out}");
    assert!(
        out.contains("app x y listen=127.0.0.1:20007 join= token= name=a ca=made"),
        "{out}"
    );
    assert!(
        out.contains("app x y listen= join=127.0.0.1:20007 token=mobula1-token name=b ca="),
        "{out}"
    );
    let left = std::fs::read_dir(&folder)
        .unwrap()
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with(".mobula"))
        .count();
    assert_eq!(left, 0, "the authority goes with the job");
}

/// Every variable of ours that the examples name is one that the code reads.
#[test]
fn the_variables_are_known() {
    let sources = [
        "src/node/cluster/serve.rs",
        "src/exec/far/mod.rs",
        "src/node/attach/folder.rs",
        "src/bin/mobula/start.rs",
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code: String = sources
        .iter()
        .map(|path| std::fs::read_to_string(root.join(path)).unwrap())
        .collect();
    // The examples' own.
    let own = ["MOBULA_DIR", "MOBULA_HEAD", "MOBULA_PORT", "MOBULA_START"];
    for name in ["kubernetes.yaml", "slurm.sh", "mobula.service", "README.md"] {
        let text = text(name);
        let words = text.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
        for word in words.filter(|w| w.starts_with("MOBULA_") && w.len() > 7 && !own.contains(w)) {
            assert!(
                code.contains(&format!("\"{word}\"")),
                "{name} names {word}, which nothing reads"
            );
        }
    }
}
