//! The query string of a URL.

/// Why a query cannot be answered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum BadQuery {
    #[error(
        "unknown filter {name:?}; there are tree, verdict, fact, pid, limit, timeline and format"
    )]
    Name { name: String },
    #[error("filter {name:?} wants {wanted}")]
    Value { name: String, wanted: String },
}

/// The names and values of `name=value&...`, decoded.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    form_urlencoded::parse(query.as_bytes()).into_owned()
}

/// `text` for use in a query.
pub fn encode(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn every_text_survives(text: String) {
            let (_, value) = pairs(&format!("a={}", encode(&text))).next().unwrap();
            proptest::prop_assert_eq!(value, text);
        }

        #[test]
        fn no_query_panics(text: String) {
            for (name, value) in pairs(&text) {
                proptest::prop_assert!(name.len() + value.len() <= 3 * text.len());
            }
        }
    }
}
