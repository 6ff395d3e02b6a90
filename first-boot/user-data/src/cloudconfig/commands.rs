//! Commands, and how the first boot ends.
//!
//! Knows `runcmd`, `bootcmd`, how often scripts run, `final_message`, `phone_home` and `power_state`. Refuses
//! to run anything. Invariant: an argument that stands in a list reaches its program as it was written.
//!
//! Documentation: cloud-init's modules "Runcmd", "Bootcmd", "Final Message", "Phone Home" and "Power State
//! Change" in <https://docs.cloud-init.io/en/latest/reference/modules.html>.

use super::fields::{FieldKey, MappingFields, no_effect, supported_key, text_of, translated_key, wrong_type};
use crate::address;
use crate::plan::step::{PhoneHome, PowerStep};
use crate::secret::Secret;
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::Located;
use document::yaml::{Node, Value};

/// The keys of the top level that this module reads.
pub const KEYS: &[FieldKey] = &[
    supported_key("runcmd"),
    supported_key("bootcmd"),
    translated_key(
        "cloud_final_modules",
        "`[scripts-user, always]` alone; the order of stages is this system's own",
    ),
    supported_key("scripts_user"),
    supported_key("final_message"),
    supported_key("phone_home"),
    supported_key("power_state"),
];
/// The keys of `phone_home`.
pub const PHONE_HOME_KEYS: &[FieldKey] =
    &[supported_key("url"), supported_key("post"), supported_key("tries")];
/// The keys of `power_state`.
pub const POWER_KEYS: &[FieldKey] = &[
    supported_key("mode"),
    supported_key("delay"),
    supported_key("message"),
    supported_key("condition"),
    no_effect("timeout", "nothing is waited for: scripts run as units of their own"),
];

mod frequency;

pub use frequency::Frequency;

/// What can be told to `phone_home`'s address.
// `pub_key_dsa` is left out, since there is no such key any more.
const POSTS: [&str; 6] =
    ["pub_key_rsa", "pub_key_ecdsa", "pub_key_ed25519", "instance_id", "hostname", "fqdn"];
// cloud-init's number.
const DEFAULT_TRIES: u32 = 10;
// Each try may take as long as a fetch does, and the machine's first boot is not over before.
const MOST_TRIES: u32 = 100;

/// Commands and endings of a document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommandsConfig {
    /// `runcmd` as a script.
    pub run: Option<Located<Secret<String>>>,
    /// `bootcmd` as a script.
    pub boot: Option<Located<Secret<String>>>,
    /// Whether scripts and `runcmd` run at each boot.
    pub scripts: Frequency,
    /// `final_message`.
    pub message: Option<Located<String>>,
    /// `phone_home`.
    pub phone_home: Option<Located<PhoneHome>>,
    /// `power_state`.
    pub power: Option<Located<PowerStep>>,
}

impl CommandsConfig {
    pub(crate) fn read(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Self {
        Self {
            run: read_script(fields, "runcmd", found),
            boot: read_script(fields, "bootcmd", found),
            scripts: frequency::read(fields, found),
            message: fields.read_text("final_message", found),
            phone_home: phone_home(fields, found),
            power: read_power_state(fields, found),
        }
    }
}

/// One line a command. A broken one is left out, the others stay.
fn read_script(
    fields: &mut MappingFields<'_>,
    name: &str,
    found: &mut Diagnostics,
) -> Option<Located<Secret<String>>> {
    let node = fields.field_node(name)?;
    let items = match &node.value {
        Value::Scalar(_) => std::slice::from_ref(node),
        _ => fields.read_list(name, found),
    };
    let mut body = String::new();
    for (index, item) in items.iter().enumerate() {
        if item.is_null() {
            continue;
        }
        match command_line(item) {
            Some(line) => body += &(line + "\n"),
            None => found.push(no_command(item).with_key(fields.child_path(&format!("{name}[{index}]")))),
        }
    }
    let at = fields.key_at(name)?;
    // `/bin/sh` as cloud-init has it, and no `set -e`: a command that fails keeps none from running.
    (!body.is_empty()).then(|| Located { value: Secret::new(format!("#!/bin/sh\n{body}")), at })
}

fn no_command(item: &Node) -> Diagnostic {
    let diagnostic = wrong_type("a command line or a list of its words", item);
    match item.value {
        Value::Mapping(_) => diagnostic
            .with_help("put the line into quotes: a colon with a blank behind it means something in YAML"),
        _ => diagnostic,
    }
}

fn command_line(item: &Node) -> Option<String> {
    match &item.value {
        Value::Scalar(_) => text_of(item).map(|text| text.value),
        Value::Sequence(words) => {
            let words: Option<Vec<String>> =
                words.iter().map(|word| Some(quote_word(&text_of(word)?.value))).collect();
            words.map(|words| words.join(" "))
        }
        _ => None,
    }
}

/// Quotes a word for the shell.
fn quote_word(word: &str) -> String {
    // Between single quotes the shell gives no character a meaning but the quote itself.
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn phone_home(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<Located<PhoneHome>> {
    let node = fields.field_node("phone_home")?;
    let mut inner =
        MappingFields::read_mapping(node, PHONE_HOME_KEYS, fields.child_path("phone_home"), found)?;
    let url = inner.read_text("url", found);
    let post = read_post(&mut inner, found);
    let tries = inner
        .read_number::<u32>("tries", found)
        .map_or(DEFAULT_TRIES, |tries| tries.value.clamp(1, MOST_TRIES));
    match url {
        Some(url) if address::is_web(&url.value) => {
            Some(Located { value: PhoneHome { url: url.value, post, tries }, at: node.at })
        }
        other => {
            let at = other.map_or(node.at, |url| url.at);
            inner.refuse_field(
                "url",
                Diagnostic::error(DiagnosticCode::BadValue, at, "`url` must be an http or https address"),
                found,
            );
            None
        }
    }
}

fn read_post(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Vec<String> {
    let texts = fields.read_texts("post", found);
    // An empty list asks for a call that says nothing; what a machine tells is not for us to add to.
    let says_nothing = matches!(fields.field_node("post").map(|node| &node.value), Some(Value::Sequence(items)) if items.is_empty());
    if says_nothing {
        return Vec::new();
    }
    if texts.is_empty() || texts.iter().any(|text| text.value == "all") {
        return POSTS.map(str::to_owned).to_vec();
    }
    let mut good = Vec::new();
    for text in texts {
        if POSTS.contains(&text.value.as_str()) {
            good.push(text.value);
        } else {
            let diagnostic = super::fields::bad_choice("post", &text.value, text.at, &POSTS);
            fields.refuse_field("post", diagnostic, found);
        }
    }
    good
}

fn read_power_state(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<Located<PowerStep>> {
    let node = fields.field_node("power_state")?;
    let mut inner = MappingFields::read_mapping(node, POWER_KEYS, fields.child_path("power_state"), found)?;
    let mode = inner.read_choice("mode", &["poweroff", "reboot", "halt"], found);
    let delay_minutes = read_delay(&mut inner, found);
    let message = inner.read_text("message", found).map(|text| text.value);
    let (wanted, condition) = read_condition(&mut inner, found);
    // A `power_state` that is not understood must not end the machine.
    if inner.has_broken_field() || !wanted {
        return None;
    }
    let Some(mode) = mode else {
        let diagnostic = Diagnostic::error(DiagnosticCode::MissingKey, node.at, "`mode` is missing");
        inner.refuse_field("mode", diagnostic.with_help("write `poweroff`, `reboot` or `halt`"), found);
        return None;
    };
    Some(Located { value: PowerStep { mode: mode.value, delay_minutes, message, condition }, at: node.at })
}

/// `now`, a number of minutes, or `+` and such a number.
fn read_delay(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> u32 {
    let Some(text) = fields.read_text("delay", found) else { return 0 };
    if text.value == "now" {
        return 0;
    }
    // shutdown(8) takes `+5`. cloud-init takes the number alone as well.
    let minutes = text.value.trim_start_matches('+').parse();
    minutes.unwrap_or_else(|_| {
        let diagnostic = Diagnostic::error(
            DiagnosticCode::BadValue,
            text.at,
            "`delay` must be `now` or minutes like `+5`",
        );
        fields.refuse_field("delay", diagnostic, found);
        0
    })
}

/// Whether it may happen at all, and the command that decides.
fn read_condition(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> (bool, Option<Vec<String>>) {
    let Some(node) = fields.field_node("condition") else { return (true, None) };
    if let Value::Scalar(scalar) = &node.value {
        match scalar.as_bool() {
            Some(wanted) => (wanted, None),
            None => (true, Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), scalar.text.clone()])),
        }
    } else {
        let words: Vec<String> =
            fields.read_texts("condition", found).into_iter().map(|text| text.value).collect();
        // A command of no words cannot succeed.
        (!words.is_empty(), Some(words))
    }
}

#[cfg(test)]
mod tests {
    use super::quote_word;

    #[test]
    fn words_are_quoted_whole() {
        assert_eq!(quote_word("it's $HOME"), r"'it'\''s $HOME'");
    }
}
