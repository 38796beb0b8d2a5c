//! Numbers that stand for texts.

use sha2::{Digest, Sha256};

/// A number that depends on all parts and where each ends. Equal parts have equal numbers, of every agent and version:
/// names of what is to be made once are built from it.
pub(crate) fn number_of(parts: &[&str]) -> u64 {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().iter().take(8).fold(0, |all, byte| all << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_depends_on_each_part_and_where_it_ends() {
        let numbers =
            [number_of(&["a", "bc"]), number_of(&["ab", "c"]), number_of(&["a", "bc", ""])];
        assert!(numbers[0] != numbers[1] && numbers[0] != numbers[2]);
        assert_eq!(numbers[0], 0x3faf_a1cf_2f19_a7c1, "as it always was");
    }
}
