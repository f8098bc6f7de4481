//! Panics of the libraries that parse other people's files.
//!
//! `tokenizers` and `parquet` panic on some malformed files where they could return an error. A damaged file is its user's
//! to replace, not a bug of this program, so such a panic becomes what their other refusals are: a reason in words.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// How many `guarded` calls this thread is in.
    static GUARDED: Cell<usize> = const { Cell::new(0) };
}

/// Runs a library over bytes from a file; a panic in it is an `Err` with the panic's message, and prints nothing.
///
/// What `run` borrows must be thrown away after an `Err`: the library may have left it half-changed.
pub fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    quiet_when_guarded();
    GUARDED.set(GUARDED.get() + 1);
    let outcome = panic::catch_unwind(AssertUnwindSafe(run));
    GUARDED.set(GUARDED.get() - 1);
    outcome.map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        format!("its reader gave up: {}", text.unwrap_or("no reason given"))
    })
}

/// Has the program's panic hook pass over the panics that are caught here.
fn quiet_when_guarded() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let earlier = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if GUARDED.get() == 0 {
                earlier(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_reason_and_the_thread_goes_on() {
        assert_eq!(guarded(|| 7), Ok(7));
        let number = 3;
        let nested = guarded(|| guarded(|| -> u8 { panic!("inner") }));
        assert_eq!(nested, Ok(Err("its reader gave up: inner".to_string())));
        assert_eq!(guarded(|| -> u8 { panic!("outer {number}") }), Err("its reader gave up: outer 3".to_string()));
        assert_eq!(GUARDED.get(), 0);
    }
}
