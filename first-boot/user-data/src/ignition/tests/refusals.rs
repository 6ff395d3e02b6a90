//! What this system cannot do is refused by name, in every version and however deep it is nested.

use super::merging::{data_reference, read_with_pages};

/// What a configuration asks for, the minor versions of 2 and of 3 that have it, and the word of the refusal.
struct Wish {
    /// Inside `ignition`.
    ignition: &'static str,
    /// Beside `ignition`.
    rest: &'static str,
    legacy: &'static [u32],
    minors: &'static [u32],
    word: &'static str,
}

const ALL: &[u32] = &[0, 1, 2, 3, 4, 5, 6];
const WISHES: &[Wish] = &[
    Wish {
        ignition: "",
        rest: r#""storage": {"raid": [{"name": "md", "level": "raid1", "devices": ["/dev/vdb", "/dev/vdc"]}]}"#,
        legacy: &[0, 1, 2, 3, 4],
        minors: ALL,
        word: "`raid` cannot be done",
    },
    Wish {
        ignition: "",
        rest: r#""storage": {"luks": [{"name": "x", "device": "/dev/vdb"}]}"#,
        legacy: &[],
        minors: &[2, 3, 4, 5, 6],
        word: "`luks` cannot be done",
    },
    Wish {
        ignition: "",
        rest: r#""kernelArguments": {"shouldExist": ["a=1"]}"#,
        legacy: &[],
        minors: &[3, 4, 5, 6],
        word: "`shouldExist` cannot be done",
    },
    Wish {
        ignition: "",
        rest: r#""kernelArguments": {"shouldNotExist": ["a=1"]}"#,
        legacy: &[],
        minors: &[3, 4, 5, 6],
        word: "`shouldNotExist` cannot be done",
    },
    Wish {
        ignition: r#""proxy": {"httpsProxy": "https://p.test:3128"}"#,
        rest: "",
        legacy: &[],
        minors: &[1, 2, 3, 4, 5, 6],
        word: "`httpsProxy` cannot be done",
    },
    Wish {
        ignition: r#""security": {"tls": {"certificateAuthorities": [{"source": "data:,x"}]}}"#,
        rest: "",
        legacy: &[2, 3, 4],
        minors: ALL,
        word: "`certificateAuthorities` cannot be done",
    },
    Wish {
        ignition: "",
        rest: r#""storage": {"files": [{"path": "/srv/x", "contents": {"source": "s3://bucket/x"}}]}"#,
        legacy: &[],
        minors: ALL,
        word: "only data, http and https addresses",
    },
    Wish {
        ignition: "",
        rest: r#""storage": {"files": [{"path": "/srv/x", "contents": {"source": "tftp://host/x"}}]}"#,
        legacy: &[],
        minors: ALL,
        word: "only data, http and https addresses",
    },
    Wish {
        ignition: "",
        rest: r#""storage": {"files": [{"path": "/srv/x", "append": [{"source": "gs://bucket/x"}]}]}"#,
        legacy: &[],
        minors: ALL,
        word: "only data, http and https addresses",
    },
    Wish {
        ignition: r#""config": {"merge": [{"source": "arn:aws:s3:::bucket/x"}]}"#,
        rest: "",
        legacy: &[],
        minors: ALL,
        word: "only data, http and https addresses",
    },
    Wish {
        ignition: r#""config": {"replace": {"source": "s3://bucket/x"}}"#,
        rest: "",
        legacy: &[0, 1, 2, 3, 4],
        minors: ALL,
        word: "only data, http and https addresses",
    },
];

impl Wish {
    /// Documents of each version that has it, with something beside it that could be done.
    fn documents(&self) -> Vec<String> {
        let versions = self.legacy.iter().map(|minor| (2, *minor));
        let versions = versions.chain(self.minors.iter().map(|minor| (3, *minor)));
        versions.map(|(major, minor)| self.document(&format!("{major}.{minor}.0"))).collect()
    }

    fn document(&self, version: &str) -> String {
        let joined = |text: &str| if text.is_empty() { String::new() } else { format!(", {text}") };
        format!(
            r#"{{"ignition": {{"version": "{version}"{}}}, "passwd": {{"groups": [{{"name": "staff"}}]}}{}}}"#,
            joined(self.ignition),
            joined(self.rest)
        )
    }
}

/// The document alone, merged, replacing, and merged by one that is merged.
fn nestings(document: &str) -> [String; 4] {
    let parent = |how: String| {
        format!(
            r#"{{"ignition": {{"version": "3.4.0", "config": {{{how}}}}},
                "storage": {{"files": [{{"path": "/srv/parent"}}]}}}}"#
        )
    };
    let merged = parent(format!(r#""merge": [{}]"#, data_reference(document)));
    let replaced = parent(format!(r#""replace": {}"#, data_reference(document)));
    let deep = parent(format!(r#""merge": [{}]"#, data_reference(&merged)));
    [document.to_owned(), merged, replaced, deep]
}

#[test]
fn nothing_is_done_of_what_asks_for_more_than_this_system_can() {
    for wish in WISHES {
        for document in wish.documents() {
            for (depth, whole) in nestings(&document).iter().enumerate() {
                let (plan, found) = read_with_pages(whole, &[]);

                assert_eq!(plan, "", "nesting {depth} of {document}: {found}");
                assert!(found.contains(wish.word), "nesting {depth} of {document}: {found}");
            }
        }
    }
}
