//! Text of a completion as it grows, and the strings that end it.

use crate::data::tokenizer::Tokenizer;
use crate::error::Result;

/// A completion's text so far.
pub struct Text<'a> {
    tokenizer: &'a Tokenizer,
    stops: &'a [String],
    tokens: Vec<u32>,
    bytes: Vec<u8>,
    /// Bytes that `fresh` has handed out.
    shown: usize,
    stopped: bool,
}

impl<'a> Text<'a> {
    /// A text that the first of `stops` in it ends, which is not part of it.
    pub fn new(tokenizer: &'a Tokenizer, stops: &'a [String]) -> Self {
        Self { tokenizer, stops, tokens: Vec::new(), bytes: Vec::new(), shown: 0, stopped: false }
    }

    /// Appends a token; returns whether the text has ended.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn push(&mut self, token: u32) -> Result<bool> {
        self.tokens.push(token);
        // All of them: a tokenizer from a file may join tokens by what stands before.
        self.bytes = self.tokenizer.decode_bytes(&self.tokens)?;
        // What was searched before holds none but one that the new bytes complete.
        let from = self.shown;
        let first = self.stops.iter().filter_map(|stop| find(&self.bytes[from..], stop.as_bytes())).min();
        if let Some(at) = first {
            self.bytes.truncate(from + at);
            self.stopped = true;
        }
        Ok(self.stopped)
    }

    /// What may be shown since the last call: whole characters, and nothing that may still turn out to be a stop string.
    /// With `all` the rest.
    pub fn fresh(&mut self, all: bool) -> String {
        let held_back = self.stops.iter().map(|stop| self.begun(stop.as_bytes())).max().unwrap_or(0);
        let end = if all || self.stopped { self.bytes.len() } else { self.bytes.len() - held_back };
        let new = &self.bytes[self.shown.min(end)..end];
        let whole = match std::str::from_utf8(new) {
            // A character's last bytes may come with the next token.
            Err(error) if error.error_len().is_none() && !all => error.valid_up_to(),
            _ => new.len(),
        };
        let text = String::from_utf8_lossy(&new[..whole]).into_owned();
        self.shown += whole;
        text
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The longest end of the text that a stop string begins with.
    fn begun(&self, stop: &[u8]) -> usize {
        let most = stop.len().saturating_sub(1).min(self.bytes.len());
        (1..=most).rev().find(|len| self.bytes.ends_with(&stop[..*len])).unwrap_or(0)
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    (!part.is_empty()).then(|| text.windows(part.len()).position(|window| window == part)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown token by token, the whole text, and the number of tokens taken.
    fn run(input: &str, stops: &[&str]) -> (Vec<String>, String, usize) {
        let tokenizer = Tokenizer::bytes();
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut text = Text::new(&tokenizer, &stops);
        let (mut shown, mut taken) = (Vec::new(), 0);
        for token in tokenizer.encode(input).unwrap() {
            taken += 1;
            let ended = text.push(token).unwrap();
            shown.push(text.fresh(false));
            if ended {
                break;
            }
        }
        shown.push(text.fresh(true));
        (shown, text.text(), taken)
    }

    #[test]
    fn the_first_stop_string_ends_the_text_and_is_never_shown() {
        let (shown, text, taken) = run("return x\n\ndef f", &["\ndef", "\n#"]);
        assert_eq!((text.as_str(), taken), ("return x\n", 13));
        assert_eq!(shown.concat(), text);
        let (shown, text, _) = run("a\n\nb", &["\n\n\n"]);
        assert_eq!((text.as_str(), shown.concat().as_str()), ("a\n\nb", "a\n\nb"));
        assert!(shown[1].is_empty(), "a newline may begin the stop string: {shown:?}");
    }

    #[test]
    fn characters_are_shown_whole() {
        let (shown, text, _) = run("é€", &[]);
        assert_eq!(shown, ["", "é", "", "", "€", ""]);
        assert_eq!(text, "é€");
    }
}
