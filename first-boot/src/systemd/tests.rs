use std::sync::mpsc;
use std::thread;

use super::*;

/// A manager that refuses whatever names a broken unit or asks for an unknown one, talks of other
/// things in between, and answers once so many calls are open.
fn manager(mut socket: UnixStream, patience: usize) -> mpsc::Receiver<String> {
    let (notes, heard) = mpsc::channel();
    thread::spawn(move || {
        let uid = nix::unistd::geteuid().to_string().len();
        let mut greeting = vec![0; "\0AUTH EXTERNAL \r\nBEGIN\r\n".len() + 2 * uid];
        socket.read_exact(&mut greeting).unwrap();
        socket.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n").unwrap();
        let (mut head, mut held) = ([0; 16], Vec::new());
        while socket.read_exact(&mut head).is_ok() {
            let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
            let fields = (number(12) as usize).next_multiple_of(8);
            let mut rest = vec![0; fields + number(4) as usize];
            socket.read_exact(&mut rest).unwrap();
            let text: String =
                rest.iter().map(|byte| char::from(*byte)).filter(char::is_ascii_graphic).collect();
            let signal = message::answer(4, 0, None);
            let is_broken = text.contains("broken") || (text.contains("GetUnit") && !text.contains("known"));
            let kind = if is_broken { message::ERROR } else { message::RETURN };
            let complaint = is_broken.then_some("there is no such unit");
            held.push([signal, message::answer(kind, number(8), complaint)].concat());
            notes.send(text).unwrap();
            if held.len() >= patience {
                socket.write_all(&held.concat()).unwrap();
                held.clear();
            }
        }
    });
    heard
}

fn ask(requests: &[UnitRequest<'_>]) -> (Vec<Result<(), ManagerError>>, Vec<String>) {
    ask_patient(requests, 1)
}

fn ask_patient(
    requests: &[UnitRequest<'_>],
    patience: usize,
) -> (Vec<Result<(), ManagerError>>, Vec<String>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let heard = manager(theirs, patience);
    let mut answers = Vec::new();
    exchange_requests(&ours, requests, &mut answers).unwrap();
    drop(ours);
    (answers, heard.into_iter().collect())
}

fn enable(unit: &str) -> UnitRequest<'_> {
    UnitRequest::Enable { unit, runtime: false }
}

fn start(unit: &str) -> UnitRequest<'_> {
    UnitRequest::Job { unit, verb: UnitVerb::Start }
}

#[test]
fn links_of_many_units_are_one_call_and_starts_one_each() {
    let (answers, heard) = ask(&[
        enable("a.service"),
        enable("b.service"),
        UnitRequest::Reload,
        start("a.service"),
        start("b.service"),
    ]);

    assert!(answers.iter().all(Result::is_ok) && answers.len() == 5);
    let methods = ["EnableUnitFiles", "Reload", "StartUnit", "StartUnit"];
    assert_eq!(heard.len(), methods.len());
    assert!(heard.iter().zip(methods).all(|(call, method)| call.contains(method)), "{heard:?}");
    assert!(heard[0].contains("a.service") && heard[0].contains("b.service"));
}

#[test]
fn each_unit_that_is_refused_is_told_and_no_other() {
    let (answers, heard) = ask(&[
        enable("a.service"),
        enable("broken.service"),
        enable("c.service"),
        start("broken.service"),
        start("c.service"),
    ]);

    let refused: Vec<bool> = answers.iter().map(Result::is_err).collect();
    assert_eq!(refused, [false, true, false, true, false]);
    assert_eq!(heard.len(), 6, "all links at once, then each, then two starts");
    let told = answers[1].as_ref().unwrap_err().to_string();
    assert_eq!(told, "systemd refused: there is no such unit");
}

#[test]
fn units_are_read_anew_only_if_one_of_them_was_read_before() {
    let methods = |units: &[&str]| {
        let units: Vec<String> = units.iter().map(|unit| (*unit).to_owned()).collect();
        let (answers, heard) = ask(&[UnitRequest::Reread { units: &units }]);
        assert!(matches!(answers[..], [Ok(())]));
        heard.iter().filter(|call| call.contains("Reload")).count()
    };

    assert_eq!(methods(&["new.service", "newer.service"]), 0);
    assert_eq!(methods(&["new.service", "known.service"]), 1);
    assert_eq!(methods(&["new@.service"]), 1, "an instance may be known");
}

#[test]
fn no_start_waits_for_the_answer_to_another() {
    let names: Vec<String> = (0..50).map(|number| format!("unit{number}.service")).collect();
    let requests: Vec<UnitRequest<'_>> = names.iter().map(|name| start(name)).collect();

    let (answers, _) = ask_patient(&requests, 50);

    assert!(answers.len() == 50 && answers.iter().all(Result::is_ok));
}

#[test]
fn more_than_the_socket_holds_is_asked_for_all_the_same() {
    let names: Vec<String> = (0..3000).map(|number| format!("unit{number}.service")).collect();
    let requests: Vec<UnitRequest<'_>> = names.iter().map(|name| start(name)).collect();

    let (answers, _) = ask(&requests);

    assert!(answers.len() == 3000 && answers.iter().all(Result::is_ok));
}
