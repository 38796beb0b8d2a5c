//! The parameters of a query request: a flat form whose keys spell a tree (`Filter.1.Name`).

use std::collections::BTreeMap;

use drover_common::ec2::{Ec2Failure, SelectorTerm, Tags};

use crate::world::cloud::refuse;

/// Parameters, or the branch of them below a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters(BTreeMap<String, String>);

/// One filter: its name and the values it allows.
pub(super) type Filter = (String, Vec<String>);

impl Parameters {
    /// Reads a query string and a form body; the body wins.
    pub(super) fn parse(query: &str, body: &str) -> Self {
        let pairs = query.split('&').chain(body.split('&')).filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(key), decoded(value))
        });
        Self(pairs.collect())
    }

    /// A value.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// A value that must be there.
    pub(super) fn required(&self, key: &str) -> Result<&str, Ec2Failure> {
        self.text(key).filter(|value| !value.is_empty()).ok_or_else(|| {
            refuse("MissingParameter", format!("The request must contain the parameter {key}"))
        })
    }

    /// A whole number.
    pub(super) fn number(&self, key: &str) -> Result<Option<u32>, Ec2Failure> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let number = text.parse().map_err(|_| {
            let message = format!("Value ({text}) for parameter {key} is invalid: not a number");
            refuse("InvalidParameterValue", message)
        })?;
        Ok(Some(number))
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.text(key)?.parse().ok()
    }

    /// What lies below `prefix.`.
    pub(super) fn below(&self, prefix: &str) -> Self {
        let prefix = format!("{prefix}.");
        let inner = self.0.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
        Self(
            inner
                .filter_map(|(key, value)| {
                    Some((key.strip_prefix(&prefix)?.to_owned(), value.clone()))
                })
                .collect(),
        )
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The branches of a list, `prefix.1`, `prefix.2`, …, in order of their numbers.
    pub(super) fn list(&self, prefix: &str) -> Vec<Self> {
        let mut branches: BTreeMap<u32, Self> = BTreeMap::new();
        for (key, value) in self.below(prefix).0 {
            let (number, rest) = key.split_once('.').unwrap_or((&key, ""));
            if let Ok(number) = number.parse() {
                branches.entry(number).or_default().0.insert(rest.to_owned(), value);
            }
        }
        branches.into_values().collect()
    }

    /// The values of a list of texts.
    pub(super) fn texts(&self, prefix: &str) -> Vec<String> {
        let branches = self.list(prefix).into_iter();
        branches.filter_map(|branch| branch.0.get("").cloned()).collect()
    }

    /// The tags of a list of `Key` and `Value`.
    pub(super) fn tags(&self, prefix: &str) -> Tags {
        let value = |branch: &Self| branch.text("Value").unwrap_or_default().to_owned();
        let branches = self.list(prefix).into_iter();
        branches
            .filter_map(|branch| Some((branch.text("Key")?.to_owned(), value(&branch))))
            .collect()
    }

    /// The filters of a describe call.
    pub(super) fn filters(&self) -> Vec<Filter> {
        let branches = self.list("Filter").into_iter();
        branches
            .filter_map(|branch| Some((branch.text("Name")?.to_owned(), branch.texts("Value"))))
            .collect()
    }
}

/// The tags that single-valued tag filters ask for, and the filters that are left.
pub(super) fn tag_filters(filters: Vec<Filter>) -> (Tags, Vec<Filter>) {
    let mut tags = Tags::new();
    let mut rest = Vec::new();
    for (name, values) in filters {
        match (name.strip_prefix("tag:"), values.as_slice()) {
            (Some(key), [value]) => {
                tags.insert(key.to_owned(), value.clone());
            }
            (None, [key]) if name == "tag-key" => {
                tags.entry(key.clone()).or_insert_with(|| "*".to_owned());
            }
            _ => rest.push((name, values)),
        }
    }
    (tags, rest)
}

/// Puts one value of a filter into a term.
type TermSetter = Box<dyn Fn(&mut SelectorTerm, &str)>;

/// Filters as selector terms: one for every combination of their values. Filters that no term can
/// express come back as they are.
pub(super) fn terms_of(
    filters: Vec<Filter>,
    id_filter: &str,
    name_filter: &str,
) -> (Vec<SelectorTerm>, Vec<Filter>) {
    let mut terms = vec![SelectorTerm::default()];
    let mut rest = Vec::new();
    for (name, values) in filters {
        let set: TermSetter = match name.strip_prefix("tag:") {
            _ if name == id_filter => Box::new(|term, value| term.id = Some(value.to_owned())),
            _ if name == name_filter => Box::new(|term, value| term.name = Some(value.to_owned())),
            Some(key) => {
                let key = key.to_owned();
                Box::new(move |term, value| {
                    term.tags.insert(key.clone(), value.to_owned());
                })
            }
            None if name == "tag-key" => Box::new(|term, key| {
                term.tags.entry(key.to_owned()).or_insert_with(|| "*".to_owned());
            }),
            None => {
                rest.push((name, values));
                continue;
            }
        };
        terms = combined(&terms, &values, set);
    }
    (terms, rest)
}

/// Every term with every value.
pub(super) fn combined(
    terms: &[SelectorTerm],
    values: &[String],
    set: impl Fn(&mut SelectorTerm, &str),
) -> Vec<SelectorTerm> {
    let pairs = terms.iter().flat_map(|term| values.iter().map(move |value| (term, value)));
    pairs
        .map(|(term, value)| {
            let mut term = term.clone();
            set(&mut term, value);
            term
        })
        .collect()
}

/// EC2's answer to a filter that it does not have (or that is not simulated).
pub(super) fn unknown_filter(name: &str) -> Ec2Failure {
    refuse("InvalidParameterValue", format!("The filter '{name}' is invalid"))
}

/// Percent-decoding as in forms, where a plus is a space.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = || {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            u8::from_str_radix(digits, 16).ok()
        };
        match (first, if first == b'%' { escaped() } else { None }) {
            (_, Some(byte)) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
                continue;
            }
            (b'+', None) => bytes.push(b' '),
            (byte, None) => bytes.push(byte),
        }
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_form_spells_a_tree() {
        let body = "Action=X&Filter.1.Name=tag%3Aa&Filter.1.Value.1=b+c&Filter.10.Name=tag-key\
                    &Filter.10.Value.1=k&Filter.2.Name=instance-id&Filter.2.Value.2=i-2\
                    &Filter.2.Value.1=i-1";
        let parameters = Parameters::parse("Version=1", body);
        assert_eq!(parameters.text("Version"), Some("1"));
        let filters = parameters.filters();
        assert_eq!(
            filters[1],
            ("instance-id".to_owned(), vec!["i-1".to_owned(), "i-2".to_owned()])
        );
        let (tags, rest) = tag_filters(filters);
        assert_eq!(tags["a"], "b c");
        assert_eq!(tags["k"], "*");
        assert_eq!(rest.len(), 1);
    }

    #[test]
    fn many_values_are_many_terms() {
        let values = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let filters = vec![
            ("subnet-id".to_owned(), values(&["s-1", "s-2"])),
            ("tag:a".to_owned(), values(&["x", "y"])),
            ("state".to_owned(), values(&["available"])),
        ];
        let (terms, rest) = terms_of(filters, "subnet-id", "");
        assert_eq!(terms.len(), 4);
        assert_eq!(terms[3].id.as_deref(), Some("s-2"));
        assert_eq!(terms[3].tags["a"], "y");
        assert_eq!(rest.len(), 1);
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        assert_eq!(decoded("%zz%2"), "%zz%2");
        assert_eq!(decoded("%C3%A9+x"), "é x");
    }
}
