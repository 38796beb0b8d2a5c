//! Pages of a long answer.

/// What every token of ours begins with.
const TOKEN: &str = "page-";

/// One page of a list and the token of the next.
#[derive(Debug)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next: Option<String>,
}

/// The page of `size` items that a token begins; `None` if the token is none of ours.
pub(crate) fn cut<T>(all: Vec<T>, token: Option<&str>, size: usize) -> Option<Page<T>> {
    let start: usize = match token {
        None | Some("") => 0,
        Some(token) => token.strip_prefix(TOKEN)?.parse().ok()?,
    };
    let end = start.saturating_add(size);
    let next = (all.len() > end).then(|| format!("{TOKEN}{end}"));
    let items = all.into_iter().skip(start).take(size).collect();
    Some(Page { items, next })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_cover_the_list_once() {
        let (mut token, mut seen) = (None, Vec::new());
        loop {
            let page = cut((0..23).collect(), token.as_deref(), 10).unwrap();
            seen.extend(page.items);
            token = page.next;
            if token.is_none() {
                break;
            }
        }
        assert_eq!(seen, (0..23).collect::<Vec<_>>());
        assert!(cut(vec![1], Some("page-x"), 10).is_none());
        assert!(cut(vec![1], Some("page-99"), 10).unwrap().items.is_empty());
    }
}
