use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use image_format::payload::index::{Chunk, PayloadIndex, Run};
use image_format::payload::object::{ObjectKind, ObjectReference};
use image_format::payload::survey::chunk_guard;
use image_format::payload::zstandard::compress_frame;
use image_format::release::root::{RoleKeys, Roles, RootMetadata};
use image_format::signed::{SecretKey, Signed, SignedPayload};
use image_format::slot::Slot;
use image_format::verity::BLOCK_BYTES;
use image_format::verity::leaves::LeafHasher;

use super::super::payload_content::PayloadContent;
use super::super::phase::TrialPlan;
use super::super::tests::{Bench, data, read_slot, release, secret_key};
use super::super::transport::tests::{Server, answer, mirrors};
use super::*;

/// What is believed in which order.
mod trust_order;

/// Blocks of a chunk: five chunks make the root.
const CHUNK: usize = 64;
const NOW: u64 = 1_000_000;

/// The files of a repository, by their paths.
type Files = BTreeMap<String, Vec<u8>>;

/// From a path, its honest bytes and another repository to what a mirror says.
type Lie = fn(&str, Vec<u8>, &Files) -> Vec<u8>;

fn sign<T: SignedPayload>(payload: Vec<u8>) -> Vec<u8> {
    Signed::<T>::sign_payload(payload, &[secret_key()]).to_envelope()
}

/// Root metadata whose channel key has this seed.
fn root_document(number: u64, channel_key: u8) -> Vec<u8> {
    let keys = RoleKeys::from_keys(&[secret_key().public_key("test")], 1);
    let channel = RoleKeys::from_keys(&[SecretKey::from_seed(&[channel_key; 32]).public_key("channel")], 1);
    let roles = Roles { channel, release: keys.clone(), root: keys };
    let (written, expires) = (UnixTime::from_seconds(number), UnixTime::from_seconds(10 * NOW));
    RootMetadata { format: 1, number, written, expires, roles }.to_bytes().unwrap()
}

fn root_envelope(number: u64, channel_key: u8) -> Vec<u8> {
    sign::<RootMetadata>(root_document(number, channel_key))
}

fn sign_channel(channel: &ChannelMetadata, key: u8) -> Vec<u8> {
    let key = SecretKey::from_seed(&[key; 32]);
    Signed::<ChannelMetadata>::sign_payload(channel.to_bytes().unwrap(), &[key]).to_envelope()
}

/// The channel under the first root.
fn channel_metadata(counter: u64, releases: Vec<OfferedRelease>) -> ChannelMetadata {
    ChannelMetadata {
        format: 1,
        channel: "stable".parse().unwrap(),
        image: "cloud".into(),
        architecture: machine_architecture(),
        root: 1,
        counter,
        written: UnixTime::from_seconds(NOW - 10),
        expires: UnixTime::from_seconds(NOW + 1000),
        paused: None,
        security_epoch: 0,
        releases,
    }
}

/// How a channel offers the release 1.1.0 of these files.
fn offered_release(files: &Files) -> OfferedRelease {
    OfferedRelease {
        version: Version::new(1, 1, 0),
        manifest: FileReference::of_bytes(&files["release/1.1.0/manifest"]),
        index: FileReference::of_bytes(&files["release/1.1.0/index"]),
        sbom: FileReference::of_bytes(b""),
        security_epoch: 0,
        floor: false,
        waves: Vec::new(),
        least_agent: None,
        least_free_bytes: 0,
        withdrawn: None,
    }
}

/// Publishes 1.1.0 with this data.
fn publish(counter: u64, seed: u8) -> Files {
    let (data, mut files) = (data(seed), Files::new());
    let release = release(Version::new(1, 1, 0), &data);
    let hasher = LeafHasher::new(release.manifest.root.salt.as_bytes());
    let chunks = data.chunks(CHUNK * BLOCK_BYTES).enumerate().map(|(number, bytes)| {
        let blocks: Vec<_> = bytes.chunks(BLOCK_BYTES).map(|block| hasher.hash_block(block)).collect();
        let packed = compress_frame(bytes, &[], 1).unwrap();
        let object = ObjectReference::to_bytes(ObjectKind::Chunk, &packed).unwrap();
        files.insert(object.repository_path(), packed);
        let run = Run {
            first: u32::try_from(number * CHUNK).unwrap(),
            blocks: u32::try_from(blocks.len()).unwrap(),
        };
        Chunk { run, guard: chunk_guard(&blocks), object }
    });
    let index = PayloadIndex {
        data_blocks: 300,
        root_hash: release.manifest.root.root_hash,
        chunks: chunks.collect(),
        block_list: None,
        bases: Vec::new(),
    };
    let index = index.to_bytes().unwrap();
    files.insert("release/1.1.0/manifest".into(), release.envelope);
    files.insert("release/1.1.0/index".into(), index);
    let channel = channel_metadata(counter, vec![offered_release(&files)]);
    files.insert("channel/stable".into(), sign_channel(&channel, 3));
    files
}

/// A server that has these files, each spoilt or not.
fn serve(files: Files, spoil: impl Fn(&str, Vec<u8>) -> Vec<u8> + Send + Sync + 'static) -> Server {
    Server::start(Box::new(move |path, _, stream| match files.get(path.trim_start_matches('/')) {
        Some(bytes) => answer(stream, "200 OK", "", &spoil(path, bytes.clone())),
        None => answer(stream, "404 No", "", b""),
    }))
}

fn bench() -> Bench {
    let bench = Bench::new();
    let root = bench.machine.root.join(IMAGE_ROOT);
    fs::create_dir_all(root.parent().unwrap()).unwrap();
    fs::write(root, root_envelope(1, 3)).unwrap();
    bench
}

/// What the service does, in one go.
fn install(bench: &Bench, mirrors: &Mirrors, clock: u64) -> Result<Journal, String> {
    let said = |error: &dyn std::error::Error| error_text::error_chain(error);
    let machine = &bench.machine;
    let mut repository = Repository::open_trusted(machine, mirrors, clock).map_err(|error| said(&error))?;
    let seen = repository.ask_channel("stable").map_err(|error| said(&error))?;
    let channel = &seen.metadata.metadata;
    let (journal, _) = machine.resume_update(1, &|_| String::new()).unwrap();
    let ReleaseChoice::Install { release: offered, .. } =
        repository.choose_release(channel, &journal, AskedBy::Service)
    else {
        return Err("nothing to install".to_owned());
    };
    let release = repository.fetch_manifest(channel, offered).map_err(|error| said(&error))?;
    let content = PayloadContent::fetch_index(&repository, mirrors, offered, machine, [None, None]);
    let mut content = content.map_err(|error| said(&error))?;
    machine
        .install_release(journal, &release, "web", &mut content, &TrialPlan::default)
        .map_err(|error| said(&error))
}

fn held(bench: &Bench) -> Option<Version> {
    read_slot(&bench.machine.record.devices.other_root)
}

#[test]
fn a_machine_installs_what_its_channel_offers() {
    let bench = bench();
    let server = serve(publish(5, 21), |_, bytes| bytes);

    let journal = install(&bench, &mirrors(&[&server.address]), NOW).unwrap();

    assert_eq!((journal.phase.phase_word(), held(&bench)), ("armed", Some(Version::new(1, 1, 0))));
    assert_eq!(bench.table().priority, Slot::B);
}

/// Case 3, 4 and 18: wrong bytes, a captive page, and parts of two honest releases: the next mirror does.
#[test]
fn a_mirror_that_lies_about_anything_is_passed_over() {
    let other = publish(5, 22);
    let liars: [Lie; 3] = [
        |path, mut bytes, _| {
            if path.contains("/chunk/") {
                bytes[20] ^= 1;
            }
            bytes
        },
        |_, _, _| b"<html>Please log in</html>".to_vec(),
        |path, bytes, other| match path {
            "/release/1.1.0/manifest" | "/release/1.1.0/index" => other[path.trim_start_matches('/')].clone(),
            _ => bytes,
        },
    ];
    for lie in liars {
        let (bench, other) = (bench(), other.clone());
        let liar = serve(publish(5, 21), move |path, bytes| lie(path, bytes, &other));
        let honest = serve(publish(5, 21), |_, bytes| bytes);

        install(&bench, &mirrors(&[&liar.address, &honest.address]), NOW).unwrap();
        assert_eq!(held(&bench), Some(Version::new(1, 1, 0)));

        let refused = install(&self::bench(), &mirrors(&[&liar.address]), NOW);
        assert!(refused.is_err(), "from the liar alone");
    }
}

/// Case 15: what was accepted is remembered over a restart of the agent and of the machine.
#[test]
fn a_replay_is_seen_after_a_restart() {
    let bench = bench();
    let [old, new] = [4, 5].map(|counter| serve(publish(counter, 21), |_, bytes| bytes));
    install(&bench, &mirrors(&[&new.address]), NOW).unwrap();

    let replayed = install(&bench, &mirrors(&[&old.address]), NOW).unwrap_err();

    assert!(replayed.contains("cannot be believed"), "{replayed}");
    assert!(install(&bench, &mirrors(&[&old.address, &new.address]), NOW).is_ok());
}

/// Case 16: a mirror that stands still, and clocks of 1970 and 2100.
#[test]
fn a_freeze_is_seen_and_a_clock_of_1970_is_not_believed() {
    let server = serve(publish(5, 21), |_, bytes| bytes);
    let ask = |bench: &Bench, clock| install(bench, &mirrors(&[&server.address]), clock);
    let bench = bench();

    assert!(ask(&bench, 4_102_444_800).unwrap_err().contains("cannot be believed"), "2100");
    assert!(ask(&bench, 0).is_ok(), "1970 on a new machine");
    assert!(ask(&bench, NOW + 1001).unwrap_err().contains("cannot be believed"), "frozen");
}

/// Case 8 and 24: stopped after each chunk, an install fetches every chunk once.
#[test]
fn an_install_that_is_stopped_again_and_again_fetches_each_chunk_once() {
    let bench = bench();
    let (cancel, asked) = (bench.machine.run_file("cancel"), Arc::new(Mutex::new(Vec::new())));
    let (seen, stop) = (Arc::clone(&asked), cancel.clone());
    let server = serve(publish(5, 21), move |path, bytes| {
        if path.contains("/chunk/") {
            seen.lock().unwrap().push(path.to_owned());
            fs::write(&stop, "").unwrap();
        }
        bytes
    });
    bench.machine.make_run_folder().unwrap();
    let mut rounds = 0;
    while install(&bench, &mirrors(&[&server.address]), NOW).is_err() {
        let _ = fs::remove_file(&cancel);
        rounds += 1;
        assert!(rounds < 20 && held(&bench).is_none(), "{rounds} rounds");
    }

    let mut asked = asked.lock().unwrap().clone();
    asked.sort();
    let all = asked.len();
    asked.dedup();
    assert_eq!((asked.len(), all), (5, 5));
    assert_eq!(held(&bench), Some(Version::new(1, 1, 0)));
}

#[test]
fn a_machine_without_a_root_of_trust_says_what_to_do() {
    let refused = install(&Bench::new(), &mirrors(&["/nowhere"]), NOW).unwrap_err();

    assert!(refused.contains("--update-root"), "{refused}");
}
