//! Page tokens: where in a list the next page starts.
//!
//! A token is the URL-safe base64 of two little-endian 16-bit numbers, limit and page. Tokens come from
//! outside: one whose limit is not the server's, or whose page is zero, is refused. Offsets are computed in
//! `usize`, so that a long list does not wrap as it did when they were 16 bits wide.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;

/// Entries on a page unless configured otherwise.
// The original's `token_limit`.
pub const DEFAULT_LIMIT: u16 = 100;

/// A position in a paged list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageToken {
    /// Entries per page.
    pub limit: u16,
    /// The page, counted from one.
    pub page: u16,
}

/// Why a page token was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum PageTokenError {
    #[error("illegal base64 data at input byte {at}")]
    Base64 { at: usize },
    #[error("token limit must be {limit}")]
    Limit { limit: u16 },
    #[error("unexpected EOF")]
    Short,
    #[error("too many values for page token")]
    TooMany,
    #[error("token page must be greater than zero")]
    Zero,
}

impl PageToken {
    /// The first page.
    #[must_use]
    pub const fn first_page(limit: u16) -> Self {
        Self { limit, page: 1 }
    }

    /// The position that the values of `nextPageToken` in a query name; without one, the first page.
    pub fn from_query<'a>(
        mut values: impl Iterator<Item = &'a str>,
        limit: u16,
    ) -> Result<Self, PageTokenError> {
        let Some(text) = values.next() else { return Ok(Self::first_page(limit)) };
        if values.next().is_some() {
            return Err(PageTokenError::TooMany);
        }
        let token = Self::decode_token(text)?;
        // The original refused it, too: a page of another size would begin elsewhere.
        if token.limit != limit {
            return Err(PageTokenError::Limit { limit });
        }
        if token.page == 0 {
            return Err(PageTokenError::Zero);
        }
        Ok(token)
    }

    /// Reads a token, whatever it says.
    pub fn decode_token(text: &str) -> Result<Self, PageTokenError> {
        let bytes = URL_SAFE
            .decode(text)
            .map_err(|error| PageTokenError::Base64 { at: error_offset(&error, text) })?;
        let Some(&[limit_low, limit_high, page_low, page_high]) = bytes.first_chunk() else {
            return Err(PageTokenError::Short);
        };
        Ok(Self {
            limit: u16::from_le_bytes([limit_low, limit_high]),
            page: u16::from_le_bytes([page_low, page_high]),
        })
    }

    /// Writes the token.
    #[must_use]
    pub fn encode_token(self) -> String {
        let ([a, b], [c, d]) = (self.limit.to_le_bytes(), self.page.to_le_bytes());
        URL_SAFE.encode([a, b, c, d])
    }

    /// The entries of this page, and the token of the next if there may be one.
    ///
    /// A list whose length is a multiple of the limit has one empty page at its end, as it always had.
    #[must_use]
    pub fn cut_page<T>(self, all: Vec<T>) -> (Vec<T>, Option<Self>) {
        let start = (usize::from(self.page) - 1) * usize::from(self.limit);
        let stop = start + usize::from(self.limit);
        if start >= all.len() {
            return (Vec::new(), None);
        }
        let next = if stop <= all.len() { self.page.checked_add(1) } else { None };
        let items = all.into_iter().skip(start).take(usize::from(self.limit)).collect();
        (items, next.map(|page| Self { page, ..self }))
    }
}

fn error_offset(error: &base64::DecodeError, text: &str) -> usize {
    match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => *at,
        // Where the last four characters would begin, of which some are missing.
        _ => text.len() - text.len() % 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn query(values: &[&str], limit: u16) -> Result<PageToken, PageTokenError> {
        PageToken::from_query(values.iter().copied(), limit)
    }

    #[test]
    fn the_known_vectors_hold() {
        assert_eq!(PageToken { limit: 100, page: 2 }.encode_token(), "ZAACAA==");
        assert_eq!(PageToken::decode_token("EwBMLg=="), Ok(PageToken { limit: 19, page: 11852 }));
    }

    #[test]
    fn what_is_not_ours_is_refused_with_the_known_words() {
        let refusals = [
            (query(&["EwBMLg=="], 100), "token limit must be 100"),
            (
                query(&[&PageToken { limit: 100, page: 0 }.encode_token()], 100),
                "token page must be greater than zero",
            ),
            (query(&["ZAACAA==", "ZAACAA=="], 100), "too many values for page token"),
            (query(&["ZAA="], 100), "unexpected EOF"),
            (query(&["ZA*CAA=="], 100), "illegal base64 data at input byte 2"),
            (query(&["ZAACAA"], 100), "illegal base64 data at input byte 4"),
        ];

        for (outcome, message) in refusals {
            assert_eq!(outcome.unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn an_exact_multiple_ends_with_one_empty_page() {
        let (items, next) = PageToken::first_page(2).cut_page(vec![1, 2]);
        assert_eq!((items, next), (vec![1, 2], Some(PageToken { limit: 2, page: 2 })));
        assert_eq!(next.unwrap().cut_page(vec![1, 2]), (vec![], None));
        assert_eq!(PageToken::first_page(2).cut_page(vec![1]), (vec![1], None));
    }

    #[test]
    fn a_list_beyond_sixteen_bits_does_not_wrap() {
        let token = PageToken { limit: 100, page: 700 };

        assert_eq!(token.cut_page((0..70_001).collect::<Vec<_>>()).0.first(), Some(&69_900));
    }

    proptest! {
        #[test]
        fn pages_joined_are_the_list(length in 0usize..700, limit in 1u16..50) {
            let all: Vec<_> = (0..length).collect();
            let (mut joined, mut token) = (Vec::new(), Some(PageToken::first_page(limit)));
            while let Some(this) = token {
                let (items, next) = this.cut_page(all.clone());
                joined.extend(items);
                token = next;
            }

            prop_assert_eq!(joined, all);
        }

        #[test]
        fn a_token_survives_the_wire(limit: u16, page: u16) {
            let token = PageToken { limit, page };
            prop_assert_eq!(PageToken::decode_token(&token.encode_token()), Ok(token));
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = PageToken::decode_token(&text);
        }
    }
}
