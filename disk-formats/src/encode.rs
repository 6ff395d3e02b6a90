//! One pass over a disk that feeds any number of encoders.
//!
//! The calling thread hands out jobs, and writes; workers read pieces and pack them. A piece is packed once for all
//! encoders that want the same packing. Invariant: encoders get every piece once, in order, so that what they write does
//! not depend on which worker was faster.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::content::{Content, ContentHasher};
use crate::disk::ReadDisk;
use crate::packing::{Packed, Packing, Toolbox};
use crate::piece::{self, PIECE_BYTES, Piece};

/// Writes one artefact.
pub trait Encoder: Send {
    /// How it wants the pieces.
    fn wanted_packing(&self) -> Packing;

    /// Takes the next piece.
    fn add(&mut self, piece: &Piece, packed: &Packed) -> io::Result<()>;

    /// Writes what follows from the whole.
    fn finish_artefact(self: Box<Self>, content: &Content) -> io::Result<()>;
}

/// How a pass is done.
#[expect(missing_debug_implementations, reason = "a closure has none")]
pub struct Pass<'a> {
    /// How many workers.
    pub threads: usize,
    /// Stretches that a block map lists even where they are zero, in order.
    pub mapped: &'a [Range<u64>],
    /// Is told how many bytes of how many are done; an error ends the pass.
    pub watch: &'a mut dyn FnMut(u64, u64) -> io::Result<()>,
}

/// What the pieces and packings that are on their way may take. With the compressors' own memory (xz: 22 MB a worker)
/// and the encoders' tables the program stays under 128 MiB.
const MEMORY_BYTES: usize = 40 << 20;
/// More workers would only wait for each other's memory.
const MAX_WORKERS: usize = 32;
/// An xz encoder has tables of eleven times its dictionary.
const MAX_XZ_WORKERS: usize = 2;

/// Reads the disk once and writes all artefacts.
pub fn encode_disk(
    disk: &dyn ReadDisk,
    mut encoders: Vec<Box<dyn Encoder + '_>>,
    pass: &mut Pass<'_>,
) -> Result<Content, EncodeError> {
    let packings = distinct_packings(&encoders);
    let window = (MEMORY_BYTES / (PIECE_BYTES * (packings.len() + 1))).clamp(3, MAX_WORKERS);
    let most = if packings.contains(&Packing::XzBlock) { MAX_XZ_WORKERS } else { MAX_WORKERS };
    let threads = pass.threads.clamp(1, most);
    let (jobs, waiting) = mpsc::channel();
    let (done, results) = mpsc::channel();
    let waiting = Mutex::new(waiting);
    let mapped = pass.mapped;
    let content = thread::scope(|scope| {
        for _ in 0..threads {
            let (done, waiting) = (done.clone(), &waiting);
            scope.spawn(move || pack_pieces(disk, mapped, waiting, &done));
        }
        drop(done);
        let line =
            Line { packings, window, jobs, results, slots: VecDeque::new(), first: 0, zeros: Vec::new() };
        line.encode_pieces(disk.disk_size(), &mut encoders, pass.watch)
    })?;
    for encoder in encoders {
        encoder.finish_artefact(&content).map_err(EncodeError::Write)?;
    }
    Ok(content)
}

fn distinct_packings(encoders: &[Box<dyn Encoder + '_>]) -> Vec<Packing> {
    // The identifiers of every format come from the hashes of the content, which have no map.
    let mut packings = Vec::new();
    for encoder in encoders {
        let packing = encoder.wanted_packing();
        if packing != Packing::Plain && !packings.contains(&packing) {
            packings.push(packing);
        }
    }
    packings
}

/// What a worker is asked.
enum Job {
    /// Reads and hashes the piece with that number.
    Read(u64),
    /// Packs it for the place with that index.
    Pack(u64, usize, Packing, Piece),
}

/// What it answers.
enum Answer {
    Read(u64, io::Result<(Piece, Packed)>),
    Pack(u64, usize, io::Result<Packed>),
}

fn pack_pieces(
    disk: &dyn ReadDisk,
    mapped: &[Range<u64>],
    waiting: &Mutex<Receiver<Job>>,
    done: &Sender<Answer>,
) {
    let mut tools = Toolbox::default();
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let answer = match job {
            Ok(Job::Read(number)) => Answer::Read(number, read_and_hash(disk, number, &mut tools)),
            Ok(Job::Pack(number, index, packing, piece)) => {
                Answer::Pack(number, index, tools.pack_piece(packing, &piece, mapped))
            }
            Err(_) => return,
        };
        if done.send(answer).is_err() {
            return;
        }
    }
}

fn read_and_hash(disk: &dyn ReadDisk, number: u64, tools: &mut Toolbox) -> io::Result<(Piece, Packed)> {
    let piece = Piece::read(disk, number)?;
    let hashes = tools.pack_piece(Packing::MapHashes, &piece, &[])?;
    Ok((piece, hashes))
}

fn is_whole_zeros(piece: &Piece) -> bool {
    piece.data.is_none() && piece.length == PIECE_BYTES
}

/// A piece on its way.
#[derive(Default)]
struct Slot {
    read: Option<(Piece, Packed)>,
    packed: Vec<Option<Packed>>,
}

impl Slot {
    fn is_ready(&self) -> bool {
        self.read.is_some() && self.packed.iter().all(Option::is_some)
    }
}

/// The pieces on their way, in order.
struct Line {
    packings: Vec<Packing>,
    window: usize,
    jobs: Sender<Job>,
    results: Receiver<Answer>,
    slots: VecDeque<Slot>,
    /// The number of the first of them.
    first: u64,
    /// What a whole piece of zeros is packed to: most of a disk is, and compressing that takes time, too.
    zeros: Vec<(Packing, Packed)>,
}

impl Line {
    /// Gives the encoders every piece.
    fn encode_pieces(
        mut self,
        size: u64,
        encoders: &mut [Box<dyn Encoder + '_>],
        watch: &mut dyn FnMut(u64, u64) -> io::Result<()>,
    ) -> Result<Content, EncodeError> {
        let (count, mut next) = (piece::count_pieces(size), 0);
        let mut hasher = ContentHasher::new(size);
        while self.first < count {
            while next < count && self.slots.len() < self.window {
                self.slots.push_back(Slot { read: None, packed: vec![None; self.packings.len()] });
                self.send_job(Job::Read(next))?;
                next += 1;
            }
            self.await_answer()?;
            while self.slots.front().is_some_and(Slot::is_ready) {
                let Some(Slot { read: Some((piece, hashes)), packed }) = self.slots.pop_front() else {
                    return Err(EncodeError::WorkerPanicked);
                };
                self.first += 1;
                if let Packed::Hashes(runs) = &hashes {
                    hasher.add(runs);
                }
                self.write(&piece, &packed, encoders)?;
                watch(piece.offset + piece.length as u64, size).map_err(EncodeError::Stopped)?;
            }
        }
        Ok(hasher.finish_hash())
    }

    fn write(
        &self,
        piece: &Piece,
        packed: &[Option<Packed>],
        encoders: &mut [Box<dyn Encoder + '_>],
    ) -> Result<(), EncodeError> {
        for encoder in encoders {
            let index = self.packings.iter().position(|packing| *packing == encoder.wanted_packing());
            let packed = index.and_then(|index| packed[index].as_ref()).unwrap_or(&Packed::Plain);
            encoder.add(piece, packed).map_err(EncodeError::Write)?;
        }
        Ok(())
    }

    fn await_answer(&mut self) -> Result<(), EncodeError> {
        // No worker is left only if all of them panicked.
        match self.results.recv().map_err(|_| EncodeError::WorkerPanicked)? {
            Answer::Read(number, read) => {
                let read = read.map_err(EncodeError::Read)?;
                let zeros = is_whole_zeros(&read.0);
                for (index, packing) in self.packings.clone().into_iter().enumerate() {
                    let known = self.zeros.iter().find(|(known, _)| zeros && *known == packing);
                    match known.map(|(_, packed)| packed.clone()) {
                        Some(packed) => self.find_slot(number)?.packed[index] = Some(packed),
                        None => self.send_job(Job::Pack(number, index, packing, read.0.clone()))?,
                    }
                }
                self.find_slot(number)?.read = Some(read);
            }
            Answer::Pack(number, index, packed) => {
                let packed = packed.map_err(EncodeError::Pack)?;
                let zeros =
                    self.find_slot(number)?.read.as_ref().is_some_and(|(piece, _)| is_whole_zeros(piece));
                // The parts of a stream do not say where they lie, as hashes do.
                if zeros && matches!(packed, Packed::Stream(_)) {
                    self.zeros.push((self.packings[index], packed.clone()));
                }
                self.find_slot(number)?.packed[index] = Some(packed);
            }
        }
        Ok(())
    }

    fn send_job(&self, job: Job) -> Result<(), EncodeError> {
        self.jobs.send(job).map_err(|_| EncodeError::WorkerPanicked)
    }

    fn find_slot(&mut self, number: u64) -> Result<&mut Slot, EncodeError> {
        let index = usize::try_from(number - self.first).map_err(|_| EncodeError::WorkerPanicked)?;
        self.slots.get_mut(index).ok_or(EncodeError::WorkerPanicked)
    }
}

/// Why a disk could not be written in other formats.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum EncodeError {
    #[error("cannot compress the disk")]
    Pack(#[source] io::Error),
    #[error("cannot read the disk")]
    Read(#[source] io::Error),
    #[error(transparent)]
    Stopped(io::Error),
    #[error("a worker panicked; please report it")]
    WorkerPanicked,
    #[error("cannot write the artefact")]
    Write(#[source] io::Error),
}
