//! The verb `verify` on a unit of systemd, and the verb `run` as one: a real systemd, booted for the test in
//! namespaces of its own, in which nothing of this machine can be changed (see `systemd/boot.sh`).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;
use sundown_testkit::bin_path;
use sundown_verify::Spawn;
use sundown_verify::process::Ended;

const LIMIT: Duration = Duration::from_secs(240);

/// A control group for the namespace's systemd to take for the root; gone when dropped.
struct ControlGroup(PathBuf);

impl ControlGroup {
    fn make() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let unified = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let root = unified.and_then(|line| line.split(' ').nth(4)).unwrap();
        let group = Path::new(root).join(format!("sundown-verify-{}", std::process::id()));
        fs::create_dir(&group).unwrap();
        Self(group)
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        fn remove(group: &Path) {
            for entry in fs::read_dir(group).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    remove(&entry.path());
                }
            }
            // What still has a process cannot be removed, and is no reason to fail twice.
            let _ = fs::remove_dir(group);
        }
        remove(&self.0);
    }
}

/// Boots with the units of a folder; returns where they have left what they have to tell, once judge.service has
/// ended well.
async fn booted_with(units: &str) -> PathBuf {
    // Both are built: the systemd of the namespace starts them from cargo's folder.
    let binaries = [bin_path("examples/planted"), cargo_bin!("sundown").into()];
    assert!(binaries.iter().all(|binary: &PathBuf| binary.exists()));
    let target = binaries[1].ancestors().nth(2).unwrap();
    let out = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("systemd")
        .join(units);
    let _ = fs::remove_dir_all(&out);
    fs::create_dir_all(&out).unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o755)).unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systemd");
    let (boot, units) = (here.join("boot.sh"), here.join(units));
    let group = ControlGroup::make();
    let join = format!("echo $$ >{}/cgroup.procs && exec \"$@\"", group.0.display());
    let namespaces = [
        "--pid",
        "--fork",
        "--kill-child",
        "--mount",
        "--mount-proc",
        "--cgroup",
        "--ipc",
        "--uts",
        "--net",
    ];
    let spawn = Spawn::new("sh").args(["-c", &join, "join", "unshare"]);
    let spawn = spawn.args(namespaces).arg("sh").arg(boot);
    let spawn = spawn.arg(target).arg(&out).arg(units).own_group();
    let mut booted = spawn.start().unwrap();
    let exit = booted.wait_exit(LIMIT).await.unwrap();
    let said = fs::read_to_string(out.join("stderr")).unwrap_or_default();
    assert_eq!(exit.ended, Ended::Code(0), "{said}{}", booted.stderr());
    out
}

/// Plays checks on a unit, and returns the results.
async fn results() -> Value {
    let out = booted_with("verify").await;
    let said = fs::read_to_string(out.join("stderr")).unwrap();
    assert!(
        said.contains("note: unit planted.service (process ")
            && said.contains("it is left running"),
        "{said}"
    );
    serde_json::from_str(&fs::read_to_string(out.join("results.json")).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "boots a systemd: it takes root, util-linux and systemd"]
async fn a_unit_is_stopped_as_systemd_does_and_started_again_as_often_as_checks_need() {
    let document = results().await;
    let schema = serde_json::from_str(include_str!("../schema/verify.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    assert!(schema.is_valid(&document), "{document}");
    assert_eq!(document["target"]["kind"], "unit");
    assert_eq!(document["target"]["url"], "http://127.0.0.1:18080");
    assert_eq!(document["stops"][0]["exit"], "exit code 0");
    let table = [
        ("signal/1", "pass", "exited after"),
        ("signal/2", "pass", "exit code 0"),
        ("signal/3", "pass", "exit code 0"),
        ("signal/5", "pass", "exit code 0"),
        ("signal/6", "skipped", "give the command instead of --unit"),
        ("signal/8", "pass", "exited after"),
        ("listener/2", "pass", "0 of 64 lost"),
        ("http1/3", "pass", "were told"),
        ("http1/14", "pass", "were told"),
        ("proc/1", "skipped", "needs all its processes"),
        ("proc/2", "pass", "the port is free"),
    ];
    let checks = document["checks"].as_array().unwrap();
    for (id, verdict, part) in table {
        let check = checks.iter().find(|check| check["id"] == id).unwrap();
        let seen = check["seen"].as_str().unwrap();
        assert!(
            check["verdict"] == verdict && seen.contains(part),
            "{id}: {check}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "boots a systemd: it takes root, util-linux and systemd"]
async fn a_guarded_unit_is_ready_reloaded_mended_and_stopped() {
    let out = booted_with("guard").await;
    let said = fs::read_to_string(out.join("guard")).unwrap();
    for line in ["generation 2 takes what connects", "nothing was cut off"] {
        assert!(said.contains(line), "{said}");
    }
}
