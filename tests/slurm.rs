//! The example for Slurm, on a cluster of this machine alone: Debian's packages `slurmctld`, `slurmd`, `slurm-client` and
//! `munge`. Where they are missing, or the test does not run as root as `slurmd` has to, it says so and is over.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Fixture, Run, folder, onnxquant, root};

/// The daemons, in the order in which they start.
const DAEMONS: [&str; 3] = ["/usr/sbin/munged", "/usr/sbin/slurmctld", "/usr/sbin/slurmd"];
const PORTS: [u16; 2] = [17_817, 17_818];
const LONGEST: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(200);

/// A cluster of one node, which goes when it is dropped.
struct Cluster {
    folder: PathBuf,
    daemons: Vec<Child>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().rev() {
            // One that ended by itself is gone already.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// Why there is no cluster on this machine, where that is so.
fn lacking() -> Option<String> {
    let missing = DAEMONS.into_iter().chain(["/usr/bin/sbatch"]).find(|program| !Path::new(program).exists());
    let is_root = || {
        let found = Run::of(Command::new("id").arg("-u"));
        found.stdout.trim() == "0"
    };
    match missing {
        Some(program) => Some(format!("there is no {program}: apt-get install slurmctld slurmd slurm-client munge")),
        None => (!is_root()).then(|| "slurmd has to run as root".to_owned()),
    }
}

impl Cluster {
    fn start(folder: &Path) -> Self {
        let at = |name: &str| folder.join(name).display().to_string();
        ["spool", "saved"].iter().for_each(|name| fs::create_dir(folder.join(name)).expect("it can be made"));
        let host = Run::of(Command::new("hostname").arg("-s")).stdout.trim().to_owned();
        let configuration = format!(
            "ClusterName=test\nSlurmctldHost={host}(127.0.0.1)\nSlurmUser=root\nAuthType=auth/munge\nAuthInfo=socket={}\n\
             SlurmctldPort={}\nSlurmdPort={}\nStateSaveLocation={}\nSlurmdSpoolDir={}\nSlurmctldPidFile={}\n\
             SlurmdPidFile={}\nProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSwitchType=switch/none\n\
             MpiDefault=none\nSchedulerParameters=batch_sched_delay=0,sched_interval=1\nSelectType=select/cons_tres\n\
             SelectTypeParameters=CR_Core\nReturnToService=2\nSlurmdParameters=config_overrides\n\
             NodeName={host} NodeAddr=127.0.0.1 CPUs=8 State=UNKNOWN\n\
             PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP\n",
            at("munge.socket"),
            PORTS[0],
            PORTS[1],
            at("saved"),
            at("spool"),
            at("slurmctld.pid"),
            at("slurmd.pid"),
        );
        fs::write(folder.join("slurm.conf"), configuration).expect("it can be written");
        let key: Vec<u8> = (0..1024_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        fs::write(folder.join("munge.key"), key).expect("it can be written");
        Run::of(Command::new("chmod").arg("600").arg(folder.join("munge.key"))).succeeded();
        let munge: Vec<String> = [
            ("--socket", "munge.socket"),
            ("--key-file", "munge.key"),
            ("--log-file", "munged.log"),
            ("--pid-file", "munged.pid"),
            ("--seed-file", "munged.seed"),
        ]
        .iter()
        .map(|(option, name)| format!("{option}={}", at(name)))
        .chain(["--foreground".to_owned(), "--force".to_owned()])
        .collect();
        let slurm = || vec!["-D".to_owned(), "-f".to_owned(), at("slurm.conf")];
        let mut cluster = Self { folder: folder.to_owned(), daemons: Vec::new() };
        for (program, words) in DAEMONS.into_iter().zip([munge, slurm(), slurm()]) {
            let log = fs::File::create(folder.join(format!("{}.log", cluster.daemons.len()))).expect("it can be made");
            let started =
                Command::new(program).args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
            cluster.daemons.push(started.expect("it can be started"));
            std::thread::sleep(PAUSE * 3);
        }
        cluster.wait_for("sinfo", &["--noheader", "--format=%T"], |text| text.contains("idle"));
        cluster
    }

    /// A command of Slurm.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SLURM_CONF", self.folder.join("slurm.conf"));
        command
    }

    fn wait_for(&self, program: &str, words: &[&str], is_there: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let run = Run::of(self.command(program).args(words));
            if is_there(&run.stdout) {
                return run.stdout;
            }
            assert!(start.elapsed() < LONGEST, "{program} {words:?}: {run:?}");
            std::thread::sleep(PAUSE);
        }
    }
}

#[test]
fn the_example_for_slurm_gives_the_bytes_of_one_run() {
    if let Some(lacking) = lacking() {
        eprintln!("not tested with Slurm: {lacking}");
        return;
    }
    let place = folder();
    let cluster = Cluster::start(place.path());
    let (fixture, at) = (Fixture::MLP, |name: &str| place.path().join(name));
    let program = Path::new(env!("CARGO_BIN_EXE_onnxquant")).parent().expect("it lies in a folder");
    let path = std::env::join_paths(
        std::iter::once(program.to_owned()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    let path = path.expect("paths can be joined");
    for settings in [&["--scheme", "w4"][..], &["--scheme", "w4", "--one-pass"]] {
        let expected = at("alone.onnx");
        let mut alone = onnxquant(&[fixture.model(), expected.clone()]);
        Run::of(alone.args(settings).arg("--calib").arg(fixture.calib()).args(["--ort-lib", "off"])).succeeded();
        let (state, output) = (at("state"), at("together.onnx"));
        let mut submit = cluster.command("sh");
        submit.arg(root().join("docs/examples/slurm/submit.sh")).arg(&state).arg(&output).arg(fixture.model());
        submit.arg("--calib").arg(fixture.calib()).args(settings).args(["--ort-lib", "off"]);
        submit.env("PATH", &path).env("SHARDS", "2").env("ORT_DYLIB_PATH", "").current_dir(place.path());
        let last = Run::of(&mut submit).succeeded().stdout.trim().to_owned();
        let ended = |text: &str| {
            ["COMPLETED", "FAILED", "CANCELLED", "DependencyNeverSatisfied"].iter().any(|state| text.contains(state))
        };
        let told = cluster.wait_for("scontrol", &["show", "job", &last], ended);
        let logs = || {
            let entries = fs::read_dir(place.path()).expect("it can be listed").flatten();
            let outputs = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("slurm-"));
            outputs.filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect::<String>()
        };
        assert!(told.contains("COMPLETED"), "{told}{}", logs());
        let same = fs::read(&output).expect("it was written") == fs::read(&expected).expect("it was written");
        assert!(same, "{settings:?}");
        fs::remove_dir_all(&state).expect("it can be removed");
    }
}
