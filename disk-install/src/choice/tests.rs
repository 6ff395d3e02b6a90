use super::*;

fn disk(path: &str, gigabytes: u64, transport: &str, serial: &str) -> DiskFacts {
    DiskFacts {
        path: PathBuf::from(path),
        bytes: gigabytes * 1_000_000_000,
        sector: 512,
        model: "Fast Disk".to_owned(),
        serial: serial.to_owned(),
        wwn: format!("eui.{serial}"),
        transport: transport.to_owned(),
        ..DiskFacts::default()
    }
}

/// A machine with everything that may go wrong.
fn disks() -> Vec<DiskFacts> {
    vec![
        DiskFacts { mounts: vec!["/".to_owned()], ..disk("/dev/nvme0n1", 500, "nvme", "N1") },
        DiskFacts { sector: 4096, ..disk("/dev/nvme1n1", 250, "nvme", "N2") },
        DiskFacts { users: vec!["md0".to_owned()], ..disk("/dev/sda", 40, "sata", "A1") },
        disk("/dev/sdb", 16, "usb", "U1"),
        disk("/dev/sdc", 2, "usb", "U2"),
    ]
}

const NEED: DiskNeed = DiskNeed { bytes: 3_000_000_000, sector: 512 };

fn chosen(expression: &str) -> String {
    let wish = DiskWish::Expression(expression.parse().unwrap());
    let disks = disks();
    match choose_disk(&wish, &disks, NEED) {
        Ok(index) => disks[index].path.display().to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn an_expression_chooses_one_disk_or_says_why_not() {
    for (expression, says) in [
        ("smallest >= 10 GB", "/dev/sdb"),
        ("smallest>=10GB and transport=usb", "/dev/sdb"),
        ("serial=u1", "/dev/sdb"),
        ("wwn=eui.U1", "/dev/sdb"),
        ("transport=usb, largest", "/dev/sdb"),
        ("size<=16 GB and size>=3G", "/dev/sdb"),
        ("transport=usb", "/dev/sdb and /dev/sdc match; nothing was written. Say more, for example serial="),
        ("model=*disk", "/dev/nvme0n1 and /dev/nvme1n1 and /dev/sda and /dev/sdb and /dev/sdc match"),
        ("serial=X*", "no disk matches; nothing was written"),
        ("largest", "/dev/nvme0n1 is not written to: it is mounted at /: unmount it first"),
        ("serial=N2", "it has sectors of 4096 bytes, and the image is for 512"),
        ("serial=A1", "md0 uses it: stop that first"),
        ("smallest", "/dev/sdc is not written to: it has 2000000000 bytes, and the image needs 3000000000"),
    ] {
        assert!(chosen(expression).contains(says), "{expression}: {}", chosen(expression));
    }
}

#[test]
fn what_means_no_disk_is_refused() {
    for wrong in [
        "sdb",
        "smallest >= many",
        "serial",
        "serial>=4",
        "size",
        "color=red",
        "size=>4",
        "",
        "size>=99999999999999T",
    ] {
        assert!(wrong.parse::<DiskExpression>().is_err(), "{wrong}");
    }
}

#[test]
fn the_table_says_of_every_disk_why() {
    let wish = DiskWish::Expression("smallest >= 10 GB".parse().unwrap());

    let table = disk_table(&wish, &disks(), NEED);

    let lines = |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    assert_eq!(lines(&table), lines(include_str!("../../tests/data/disks.golden")));
}
