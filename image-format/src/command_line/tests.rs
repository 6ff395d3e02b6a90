//! Which lines can be signed, and which lines a kernel may be given.

use super::*;

const KERNEL: &str = "/boot/vmlinuz";
const SIGNED: &str = "console=tty0 console=ttyS0,115200n8 quiet gpt panic=10 systemd.firstboot=off";
const FIRST: &str = "BOOT_IMAGE=(hd0,gpt4)/boot/vmlinuz";
const LAST: &str = "catamaran.slot=a catamaran.disk=written:395a7af1528959f9b3f0c9b9a7ace73c.4";

fn signed() -> CommandLine {
    SIGNED.parse().unwrap()
}

/// What is said about a line whose middle is this.
fn said(middle: &str) -> Result<(), String> {
    said_of_whole(&format!("{FIRST} {middle} {LAST}\n"))
}

fn said_of_whole(line: &str) -> Result<(), String> {
    signed().check_given(&GivenLine::parse(line), KERNEL).map_err(|error| error.to_string())
}

#[test]
fn the_signed_line_is_accepted_from_every_place_of_the_kernel() {
    for device in ["hd0,gpt4", "hd1,gpt5", "root_b", "lvm-x"] {
        let line = format!("BOOT_IMAGE=({device})/boot/vmlinuz {SIGNED} {LAST}\n");
        assert_eq!(said_of_whole(&line), Ok(()), "{device}");
    }
}

#[test]
fn each_word_is_missed_when_it_is_gone_changed_or_elsewhere() {
    let words: Vec<&str> = SIGNED.split(' ').collect();
    for (index, word) in words.iter().enumerate() {
        let number = index + 1;
        let mut without = words.clone();
        without.remove(index);
        assert!(said(&without.join(" ")).is_err(), "{word} was removed");

        let mut changed = words.clone();
        let other = format!("{word}0");
        changed[index] = &other;
        assert_eq!(
            said(&changed.join(" ")),
            Err(format!("word {number} is {other:?}, but {word:?} was signed"))
        );

        let mut twice = words.clone();
        twice.insert(index, word);
        assert!(said(&twice.join(" ")).is_err(), "{word} stands twice");

        let mut moved = words.clone();
        moved.rotate_left(index);
        assert_eq!(said(&moved.join(" ")).is_ok(), index == 0, "{word} was moved to the front");
    }
}

#[test]
fn a_word_more_is_refused_wherever_it_stands() {
    let orders = [
        "systemd.set_credential_binary=systemd.extra-unit.pwn.service:W1NlcnZpY2Vd",
        "systemd.wants=pwn.service",
        "init=/bin/sh",
        "rdinit=/bin/sh",
        "--",
        "\"",
        "quiet\u{b}init=/bin/sh",
        "\u{a0}",
        "catamaran.platform=ec2",
        "catamaran.future",
        "catamaran.slot=b",
        "catamaran.disk=unknown",
        "BOOT_IMAGE=(hd0,gpt4)/boot/vmlinuz",
    ];
    let words: Vec<&str> = SIGNED.split(' ').collect();
    for order in orders {
        for index in 0..=words.len() {
            let mut more = words.clone();
            more.insert(index, order);
            assert!(said(&more.join(" ")).is_err(), "{order} at {index}");
        }
        assert!(said_of_whole(&format!("{order} {FIRST} {SIGNED} {LAST}")).is_err(), "{order} in front");
        assert!(said_of_whole(&format!("{FIRST} {SIGNED} {LAST} {order}")).is_err(), "{order} at the end");
    }
    assert_eq!(said(&format!("{SIGNED} single")), Err("\"single\" was added".to_owned()));
    assert_eq!(said("console=tty0"), Err("\"console=ttyS0,115200n8\" is missing".to_owned()));
}

#[test]
fn the_kernel_must_be_the_one_of_the_slot() {
    for first in [
        "",
        "BOOT_IMAGE=",
        "BOOT_IMAGE=/boot/vmlinuz",
        "BOOT_IMAGE=()/boot/vmlinuz",
        "BOOT_IMAGE=(hd0,gpt4)/boot/vmlinuz.old",
        "BOOT_IMAGE=(hd0,gpt4)/x/boot/vmlinuz",
        "BOOT_IMAGE=(hd0\"gpt4)/boot/vmlinuz",
        "BOOT_IMAGE=(hd0,gpt4)/(hd1)/boot/vmlinuz",
        "boot_image=(hd0,gpt4)/boot/vmlinuz",
    ] {
        let refused = said_of_whole(&format!("{first} {SIGNED} {LAST}")).unwrap_err();
        assert!(refused.starts_with("it begins with "), "{first}: {refused}");
    }
}

/// Else a word in /boot/env could send the initramfs to another disk, or stop it before it judges the slot.
#[test]
fn the_selector_has_the_last_word_on_its_parameters() {
    let line = format!("{FIRST} catamaran.slot=b catamaran.disk=x {SIGNED} catamaran.disk=unknown {LAST}");

    let given = GivenLine::parse(&line);

    assert_eq!(given.selector_parameter("slot"), Some("a"));
    assert_eq!(given.selector_parameter("disk"), Some("written:395a7af1528959f9b3f0c9b9a7ace73c.4"));
    assert_eq!(given.selector_parameter("platform"), None);
    assert!(signed().check_given(&given, KERNEL).is_err());
}

#[test]
fn what_another_program_reads_differently_cannot_be_signed() {
    let refused = |text: &str| text.parse::<CommandLine>().unwrap_err().to_string();

    for text in
        ["a'b", "a\"b", "a$b", "a\\b", "a\nb", "a\tb", "a\u{b}b", "ä", "a\u{a0}b", "\u{1b}[2J", "\u{7f}"]
    {
        assert!(refused(text).starts_with("the command line has "), "{text:?}");
    }
    for text in ["catamaran.slot=a", "quiet catamaran.disk=", "catamaran.disk", "BOOT_IMAGE=x", "BOOT_IMAGE"]
    {
        assert!(refused(text).ends_with("is the boot loader's own"), "{text:?}");
    }
    assert_eq!(refused(&"x".repeat(901)), "the command line has 901 bytes, at most 900 are allowed");
    let half: CommandLine = "x".repeat(450).parse().unwrap();
    assert_eq!(half.append_line(&half), Err(ParseCommandLineError::TooLong { given: 901 }));
}

#[test]
fn a_line_is_its_words() {
    let line: CommandLine = "  quiet   catamaran.platform=ec2 ".parse().unwrap();

    assert_eq!(line.to_string(), "quiet catamaran.platform=ec2");
    assert_eq!(
        line.append_line(&"panic=10".parse().unwrap()).unwrap().to_string(),
        format!("{line} panic=10")
    );
    assert_eq!(
        CommandLine::default().check_given(&GivenLine::parse(&format!("{FIRST} {LAST}")), KERNEL),
        Ok(())
    );
}
