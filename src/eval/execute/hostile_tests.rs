//! Programs that mean harm to others: none changes another's verdict, none leaves something behind. Each is run
//! under all layers that this machine allows, and under each layer that is to hold it alone.

use super::tests::{ALL, limits, python};
use super::*;
use std::time::{Duration, Instant};

/// The settings of layers among `wanted` that are in force here, each with an interpreter; says which are not.
pub(super) fn under(wanted: &[Layers]) -> Vec<(Layers, Python)> {
    let Some(python) = python() else {
        return Vec::new();
    };
    let there = python.confinement().layers;
    let is_there = |layers: &Layers| {
        (there.namespaces || !layers.namespaces)
            && (there.landlock || !layers.landlock)
            && (there.seccomp || !layers.seccomp)
    };
    let skipped = wanted.iter().filter(|layers| !is_there(layers));
    skipped.for_each(|layers| eprintln!("SKIPPED under {layers:?}: {}", python.confinement()));
    let settings = wanted.iter().filter(|layers| is_there(layers));
    settings.map(|layers| (*layers, python.clone().with_layers(*layers))).collect()
}

pub(super) const NONE: Layers = Layers { namespaces: false, landlock: false, seccomp: false };
const NAMESPACES: Layers = Layers { namespaces: true, ..NONE };
const LANDLOCK: Layers = Layers { landlock: true, ..NONE };
const SECCOMP: Layers = Layers { seccomp: true, ..NONE };

/// The program must be refused: it passes if what it tries raises an OSError.
#[track_caller]
fn refused(wanted: &[Layers], tries: &str) {
    let body: String = tries.lines().map(|line| format!("    {line}\n")).collect();
    let program =
        format!("import os, sys, socket, signal, ctypes\ntry:\n{body}except OSError as error:\n    print(error)\n");
    let program = format!("{program}else:\n    raise ValueError('it was let through')");
    for (layers, python) in under(wanted) {
        assert_eq!(python.run(&program, &limits()).unwrap(), Verdict::Passed, "{tries} under {layers:?}");
    }
}

#[test]
fn processes_cannot_be_started() {
    refused(&[ALL, SECCOMP], "if os.fork() == 0: os._exit(0)");
    refused(&[ALL, SECCOMP], "import subprocess\nsubprocess.run(['/bin/true'])");
    refused(&[ALL, SECCOMP], "os.posix_spawn('/bin/true', ['/bin/true'], {})");
    // Past the C library: clone with SIGCHLD alone.
    #[cfg(target_arch = "x86_64")]
    refused(&[ALL, SECCOMP], "if ctypes.CDLL(None).syscall(56, 17, 0, 0, 0, 0) == -1: raise OSError\nos._exit(0)");
}

/// It ends, everything that it started ends with it, and others' verdicts stay.
#[test]
fn a_fork_bomb_burns_out() {
    let outside = tempfile::tempdir().unwrap();
    let marker = outside.path().join("marker");
    let bomb = format!(
        "
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(6):
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        pass
time.sleep(1.5)
try:
    open({marker:?}, 'a').write('alive')
except OSError:
    pass
time.sleep(60)"
    );
    let limits = Limits { wall: Duration::from_millis(700), ..limits() };
    for (layers, python) in under(&[ALL, NAMESPACES, SECCOMP]) {
        let start = Instant::now();
        let programs = [bomb.as_str(), "x = 1", &bomb, "assert True", "pass"].map(str::to_string);
        let verdicts = run_many(&python, &programs, &limits, 2).unwrap();
        let expected = [Verdict::TimedOut, Verdict::Passed, Verdict::TimedOut, Verdict::Passed, Verdict::Passed];
        assert_eq!(verdicts, expected, "under {layers:?}");
        assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    }
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!marker.exists(), "something outlived its program");
}

/// Where children are allowed they end with the program, also those that left its group: by the process namespace.
#[test]
fn a_child_does_not_outlive_the_program() {
    let outside = tempfile::tempdir().unwrap();
    let marker = outside.path().join("marker");
    // The child inherits the outputs, ignores the polite signals and writes the marker after the program's end.
    let fork = |leave: &str| {
        format!(
            "
import os, signal, time
if os.fork() == 0:
    {leave}
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1.5)
    open({marker:?}, 'w').write('alive')
    os._exit(0)
"
        )
    };
    let limits = Limits { children: true, wall: Duration::from_millis(800), ..limits() };
    let start = Instant::now();
    let leaves: [(&[Layers], &str); 2] = [(&[NONE, NAMESPACES, SECCOMP], "pass"), (&[NAMESPACES], "os.setsid()")];
    for (layers, leave) in leaves {
        for (layers, python) in under(layers) {
            let verdict = python.run(&fork(leave), &limits).unwrap();
            assert_eq!(verdict, Verdict::Passed, "under {layers:?}");
            let verdict = python.run(&format!("{}time.sleep(60)", fork(leave)), &limits).unwrap();
            assert_eq!(verdict, Verdict::TimedOut, "under {layers:?}");
        }
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    std::thread::sleep(Duration::from_secs(2));
    assert!(!marker.exists(), "a child of the program outlived it");
}

#[test]
fn signals_are_ignored_in_vain() {
    let program = "
import signal, time
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    try:
        time.sleep(60)
    except BaseException:
        pass";
    let limits = Limits { wall: Duration::from_millis(500), ..limits() };
    for (layers, python) in under(&[ALL, NONE]) {
        assert_eq!(python.run(program, &limits).unwrap(), Verdict::TimedOut, "under {layers:?}");
    }
}

#[test]
fn nobody_else_is_killed() {
    // The process that runs the tests stands for a trainer: were it killed, nothing below would be reached.
    let trainer = std::process::id();
    refused(&[ALL, SECCOMP], &format!("os.kill({trainer}, signal.SIGKILL)"));
    refused(&[NAMESPACES], &format!("os.kill({trainer}, 0)"));
    refused(&[ALL, SECCOMP], "os.kill(os.getppid(), signal.SIGKILL)");
    // Every process at once, and past os.kill: tgkill of a thread of the trainer.
    refused(&[ALL, SECCOMP], "os.kill(-1, signal.SIGKILL)");
    #[cfg(target_arch = "x86_64")]
    refused(
        &[ALL, SECCOMP],
        &format!("if ctypes.CDLL(None).syscall(234, {trainer}, {trainer}, 0) == -1: raise OSError"),
    );
}

#[test]
fn there_is_no_network() {
    refused(&[ALL, SECCOMP], "socket.socket()");
    refused(&[ALL, SECCOMP], "socket.socket(socket.AF_UNIX)");
    // A listener of this machine: in its own namespace the program has not even a loopback.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = format!("socket.create_connection(('127.0.0.1', {port}), 2)");
    refused(&[ALL, NAMESPACES], &connect);
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "somebody connected");
}

#[test]
fn nothing_is_written_outside_the_folder() {
    let outside = tempfile::tempdir().unwrap();
    let (file, secret) = (outside.path().join("new"), outside.path().join("secret"));
    std::fs::write(&secret, "s").unwrap();
    for tries in [
        format!("open({file:?}, 'w')"),
        format!("os.mkdir({file:?})"),
        format!("os.symlink('/', {file:?})"),
        format!("open({secret:?}, 'a')"),
        format!("os.truncate({secret:?}, 0)"),
        format!("os.unlink({secret:?})"),
        format!("os.rename({secret:?}, 'mine')"),
        "open('../../output', 'w')".to_string(),
        "open('/dev/shm/trainer-test', 'w')".to_string(),
    ] {
        refused(&[ALL, LANDLOCK, NAMESPACES], &tries);
    }
    refused(&[ALL, LANDLOCK], &format!("open({secret:?}).read()"));
    refused(&[ALL, LANDLOCK], "os.listdir('/proc')");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "s");
    assert!(!file.exists());
    // Its own folder is its own, with folders in it.
    let free = "import os\nos.makedirs('a/b')\nopen('a/b/c', 'w').write('x')\nos.rename('a/b/c', 'c')\nassert os.listdir() != []";
    for (layers, python) in under(&[ALL, LANDLOCK, NAMESPACES, SECCOMP, NONE]) {
        assert_eq!(python.run(free, &limits()).unwrap(), Verdict::Passed, "under {layers:?}");
    }
}

#[test]
fn a_full_folder_ends_the_program() {
    let fill = "
block = bytes(1 << 20)
for number in range(10_000):
    with open(str(number), 'wb') as f:
        for _ in range(8):
            f.write(block)
";
    let limits = Limits { folder_bytes: 24 << 20, ..limits() };
    for (layers, python) in under(&[ALL, NONE]) {
        let programs = [fill, "open('x', 'wb').write(bytes(1 << 22))"].map(str::to_string);
        let verdicts = run_many(&python, &programs, &limits, 2).unwrap();
        let expected =
            if layers.namespaces { "OSError: [Errno 28] No space left on device" } else { "filled its folder" };
        assert!(matches!(&verdicts[0], Verdict::Failed(failure) if failure.to_string() == expected), "{verdicts:?}");
        assert_eq!(verdicts[1], Verdict::Passed, "under {layers:?}");
    }
    let files = "for number in range(100_000):\n    open(str(number), 'w').close()";
    for (layers, python) in under(&[ALL]) {
        let verdict = python.run(files, &limits).unwrap();
        assert!(matches!(verdict, Verdict::Failed(_)), "{verdict:?} under {layers:?}");
    }
}

#[test]
fn a_gigabyte_of_output_ends_early() {
    let print = "for _ in range(1 << 10):\n    print('x' * (1 << 20))";
    for (layers, python) in under(&[ALL, NONE]) {
        assert_eq!(python.run(print, &limits()).unwrap(), Verdict::TooMuchOutput, "under {layers:?}");
    }
}

#[test]
fn root_is_left_at_the_door() {
    for (layers, python) in under(&[ALL, NAMESPACES, NONE]) {
        let program = "
for line in open('/proc/self/status'):
    if line.startswith(('CapEff', 'CapPrm')):
        assert int(line.split()[1], 16) == 0, line
    if line.startswith('NoNewPrivs'):
        assert line.split()[1] == '1', line";
        // Landlock hides the file that tells.
        let expected =
            if layers.landlock { "PermissionError: [Errno 13] Permission denied: '/proc/self/status'" } else { "" };
        match python.run(program, &limits()).unwrap() {
            Verdict::Passed if !layers.landlock => {}
            Verdict::Failed(failure) if failure.to_string() == expected => {}
            verdict => panic!("{verdict:?} under {layers:?}"),
        }
    }
}
