//! README.md of a model directory: what the Hub shows, and what is known of how the model came to be.

use std::fmt::Write;

/// The file's name.
pub const README: &str = "README.md";

/// (what, how much) rows; what is not known has none.
pub type Facts = Vec<(&'static str, String)>;

/// What a card says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelCard {
    pub name: String,
    pub parameters: String,
    pub model: Facts,
    pub training: Facts,
    pub data: Facts,
    /// A tokenizer lies beside the weights.
    pub has_tokenizer: bool,
    /// The version of this program.
    pub version: String,
}

impl ModelCard {
    /// The file: YAML that the Hub reads (github.com/huggingface/hub-docs, modelcard.md), then Markdown. A license is
    /// for whoever publishes the model to add.
    pub fn text(&self) -> String {
        let mut text = String::from(
            "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- phi\n- code\n- trainer\n---\n\n",
        );
        let name = plain(&self.name);
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "# {name}\n\nA decoder-only transformer of {} parameters, with the architecture of phi-1 \
             (`PhiForCausalLM`): transformers loads it without remote code.\n\n```python\n{}```\n",
            self.parameters,
            self.snippet()
        );
        for (title, facts) in [("Model", &self.model), ("Training", &self.training), ("Data", &self.data)] {
            if facts.is_empty() {
                continue;
            }
            let _ = write!(text, "\n## {title}\n\n| | |\n|---|---|\n");
            for (what, value) in facts {
                let _ = writeln!(text, "| {what} | {} |", plain(value));
            }
        }
        let _ = write!(text, "\nWritten by trainer {}.\n", plain(&self.version));
        text
    }

    fn snippet(&self) -> &'static str {
        if self.has_tokenizer {
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
             path = \".\"  # this directory, or its name on the Hub\n\
             model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)\n\
             inputs = tokenizer(\"def add(a, b):\\n\", return_tensors=\"pt\")\n\
             print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0]))\n"
        } else {
            "import torch\nfrom transformers import AutoModelForCausalLM\n\n\
             path = \".\"  # this directory, or its name on the Hub\n\
             model = AutoModelForCausalLM.from_pretrained(path)\n\
             print(model(torch.tensor([[0, 1, 2]])).logits)  # token ids; no tokenizer is known for this model\n"
        }
    }
}

/// Text that is no Markdown and no end of a table's cell: names of files may hold anything.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '|' | '<' | '>' | '[' | ']' | '*' | '`' | '\\' | '#' => plain.extend(['\\', letter]),
            letter if letter.is_control() => plain.push(' '),
            letter => plain.push(letter),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_says_what_is_known_and_no_more() {
        let card = ModelCard {
            name: "odd|name\n---".to_string(),
            parameters: "1,234".to_string(),
            model: vec![("layers", "4".to_string())],
            has_tokenizer: true,
            version: "0.1.0".to_string(),
            ..ModelCard::default()
        };
        let text = card.text();
        assert!(text.starts_with("---\nlibrary_name: transformers\n"), "{text}");
        assert_eq!(text.lines().filter(|line| *line == "---").count(), 2);
        assert!(text.contains("\n# odd\\|name ---\n") && text.contains("1,234 parameters"), "{text}");
        assert!(text.contains("| layers | 4 |") && text.contains("AutoTokenizer"), "{text}");
        assert!(!text.contains("## Training") && !text.contains("## Data"), "{text}");
        let text = ModelCard { has_tokenizer: false, training: vec![("steps", "9".to_string())], ..card }.text();
        assert!(
            !text.contains("AutoTokenizer") && text.contains("## Training\n\n| | |\n|---|---|\n| steps | 9 |"),
            "{text}"
        );
    }
}
