//! Pages as EC2's describe calls ask for them.

use drover_common::ec2::Ec2Failure;

use super::parameters::Parameters;
use crate::faces::page::{Page, cut};
use crate::world::cloud::refuse;

/// Cuts the page that `NextToken` and `MaxResults` ask for out of the whole list; without
/// `MaxResults` a page holds `usual` items at most.
pub(super) fn page<T>(
    all: Vec<T>,
    parameters: &Parameters,
    usual: usize,
) -> Result<Page<T>, Ec2Failure> {
    let size = match parameters.number("MaxResults")? {
        None => usual,
        Some(size @ 5..=1000) => usize::try_from(size).unwrap_or(usual).min(usual),
        Some(size) => {
            let message = format!("Value ({size}) for parameter maxResults is invalid: 5 to 1000");
            return Err(refuse("InvalidParameterValue", message));
        }
    };
    cut(all, parameters.text("NextToken"), size)
        .ok_or_else(|| refuse("InvalidNextToken", "The token is invalid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_out_of_range_and_foreign_tokens_are_refused() {
        let ask = |body| page((0..30).collect(), &Parameters::parse("", body), 20);
        assert_eq!(ask("").unwrap().items.len(), 20);
        assert_eq!(ask("MaxResults=5").unwrap().items.len(), 5);
        assert_eq!(ask("MaxResults=4").err().unwrap().code, "InvalidParameterValue");
        assert_eq!(ask("MaxResults=x").err().unwrap().code, "InvalidParameterValue");
        assert_eq!(ask("NextToken=other").err().unwrap().code, "InvalidNextToken");
    }
}
