//! Generation on the emulated driver: small kernels are what a token takes on a GPU, so their number is held.

use std::fs;

use super::{prepared, program};
use crate::support::{Place, run};

#[test]
fn a_token_takes_four_kernels_a_block() {
    let Some((dir, wheels)) = prepared() else { return };
    let place = Place::new();
    run(&mut place.train("run", "train.steps=1 validation.every=0 optimizer.warmup_steps=1")).success();
    let launches = |tokens: usize| {
        let folder = dir.path().join(tokens.to_string());
        fs::create_dir(&folder).unwrap();
        let mut command = program(dir.path(), &wheels, "90");
        command.args([
            "generate",
            "--prompt",
            "def ",
            "--precision",
            "fp16",
            "--json",
            "--max-tokens",
            &tokens.to_string(),
        ]);
        // Launches do nothing: the logits are zeros, and so each token is the first of the vocabulary.
        let report =
            run(command.env("CUDA_EMULATOR_DIR", &folder).arg("--model").arg(place.path("run"))).success().json();
        assert_eq!(report["completions"][0]["tokens"].as_array().unwrap().len(), tokens);
        fs::read_to_string(folder.join("launches")).unwrap().lines().count()
    };
    // In the blocks: products with GELU, attention, branches with their sum, norm. Around them: embedding, norm, the rotation's
    // two rows, head, logits in fp32.
    let (blocks, around) = (2 * 4, 6);
    assert_eq!(launches(9) - launches(4), 5 * (blocks + around));
}
