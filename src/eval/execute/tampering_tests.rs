//! Programs that want to pass without being right: none does, and none changes another's verdict.

use super::hostile_tests::{NONE, under};
use super::tests::{ALL, limits};
use super::*;

/// What would be a pass, were the token known.
const TAMPERING: &[(&str, &str)] = &[
    ("leaves", "import os\nos._exit(0)"),
    ("leaves with every status", "import os\nfor status in range(256):\n    os._exit(status)"),
    ("exits", "import sys\nsys.exit(0)"),
    ("exits at exit", "import atexit, os\natexit.register(os._exit, 0)\nraise SystemExit"),
    ("replaces functions", "
import builtins, os, sys
for name in ['exec', 'BaseException', 'str', 'type', 'isinstance', 'len']:
    setattr(builtins, name, lambda *a, **k: True)
os._exit = os.write = os.read = sys.exit = lambda *a, **k: None
assert 1 == 2"),
    ("replaces the exception", "
import builtins
class Never(BaseException):
    pass
builtins.AssertionError = builtins.Exception = builtins.BaseException = Never
assert 1 == 2"),
    ("writes to every file", "
import os
for fd in range(128):
    for text in [b'passed', b'started\\n', b'0' * 32]:
        try:
            os.write(fd, text)
        except OSError:
            pass
os._exit(0)"),
    ("empties every file", "
import os
for fd in range(128):
    try:
        os.ftruncate(fd, 0)
    except OSError:
        pass
os._exit(0)"),
    ("closes every file and goes on", "import os\nos.closerange(0, 128)\nassert 1 == 2"),
    ("reads how it is started", "
import os, sys
texts = [str(sys.argv), str(sys.orig_argv), str(dict(os.environ)), str(sys._getframe(1).f_locals), str(sys._getframe(1).f_globals)]
for fd in range(128):
    try:
        os.write(fd, ''.join(texts).encode())
    except OSError:
        pass
os._exit(0)"),
    ("deletes its surroundings", "
import os, shutil
shutil.rmtree('..', ignore_errors=True)
shutil.rmtree('../..', ignore_errors=True)
os._exit(0)"),
    ("catches everything", "
try:
    assert 1 == 2
except BaseException:
    pass
raise SystemExit"),
    ("dies", "import os, signal\nsignal.raise_signal(signal.SIGKILL)\nos.abort()"),
    ("crashes", "import ctypes\nctypes.string_at(0)"),
    ("becomes another program", "import os\nos.execv('/bin/true', ['/bin/true'])"),
];

#[test]
fn tampering_does_not_pass() {
    for (layers, python) in under(&[ALL, NONE]) {
        let programs: Vec<String> = TAMPERING.iter().map(|(_, program)| program.to_string()).collect();
        // Each alone, then all side by side with good programs.
        let verdicts = run_many(&python, &programs, &limits(), 2).unwrap();
        for ((name, _), verdict) in TAMPERING.iter().zip(&verdicts) {
            assert!(matches!(verdict, Verdict::Failed(_)), "{name} under {layers:?}: {verdict:?}");
        }
        let among: Vec<String> = programs.into_iter().flat_map(|bad| [bad, "assert 1 + 1 == 2".to_string()]).collect();
        let verdicts = run_many(&python, &among, &limits(), 3).unwrap();
        assert!(verdicts.iter().skip(1).step_by(2).all(|verdict| *verdict == Verdict::Passed), "{verdicts:?}");
        assert!(verdicts.iter().step_by(2).all(|verdict| *verdict != Verdict::Passed), "{verdicts:?}");
    }
}
