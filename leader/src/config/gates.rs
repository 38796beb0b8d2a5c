//! `FEATURE_GATES` as Karpenter writes it: `Name=true,Other=false`.

use std::collections::BTreeMap;

/// The gates that are named, known here or not.
///
/// # Errors
/// Which part is no gate, in words.
pub fn parse(text: &str) -> Result<BTreeMap<String, bool>, String> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (name, value) =
                part.split_once('=').ok_or_else(|| format!("{part:?} is not NAME=BOOL"))?;
            let value = match value.trim().to_ascii_lowercase().as_str() {
                "true" | "t" | "1" => true,
                "false" | "f" | "0" => false,
                _ => return Err(format!("{part:?} is neither true nor false")),
            };
            Ok((name.trim().to_owned(), value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_read_as_karpenter_writes_them() {
        let gates = parse("NodeRepair=false, SpotToSpotConsolidation=true,").unwrap();
        assert_eq!(gates.get("SpotToSpotConsolidation"), Some(&true));
        assert_eq!(gates.get("NodeRepair"), Some(&false));
        assert!(parse("").unwrap().is_empty());
        assert!(parse("NodeRepair").is_err());
        assert!(parse("NodeRepair=maybe").is_err());
    }
}
