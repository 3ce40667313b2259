//! A hostile git server over HTTP. It speaks just enough of git's protocol, version 2, that a client goes on reading.

use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The attack on the client that fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Malice {
    /// Its capabilities never end.
    EndlessCapabilities,
    /// Its list of refs never ends.
    EndlessRefs,
    /// Its pack never ends, and holds what cannot be compressed.
    EndlessPack,
    /// Its pack never ends, and unfolds to two hundred times its size.
    EndlessZeros,
    /// Its pack of less than a megabyte unfolds into sixty objects of 60 MB. Twelve are each made of the one before, and have to
    /// be kept for four others that are made of them as well.
    Unfolding,
    /// Its pack comes a byte a second.
    Dripping,
    /// It begins a pack and sends nothing more.
    Stopping,
    /// Its pack is good, but it announces the end of the history (a shallow commit) for very many commits.
    ManyEnds,
}

/// A good branch, for a server that shows one.
#[derive(Debug, Clone)]
pub(crate) struct Good {
    pub(crate) tip: String,
    /// All objects of the branch, in one pack.
    pub(crate) pack: Vec<u8>,
}

/// The server, on a free port. It ends with this value.
#[derive(Debug)]
pub(crate) struct HostileServer {
    port: u16,
    ended: Arc<AtomicBool>,
}

impl HostileServer {
    pub(crate) fn start(malice: Malice) -> Self {
        Self::showing(malice, Good { tip: TIP.to_owned(), pack: Vec::new() })
    }

    pub(crate) fn showing(malice: Malice, good: Good) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let ended = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&ended);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let (over, good) = (Arc::clone(&over), good.clone());
                // A client that hangs up causes an error here, which is expected.
                std::thread::spawn(move || serve(connection.unwrap(), malice, &good, &over).ok());
            }
        });
        Self { port, ended }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/fleet.git", self.port)
    }
}

impl Drop for HostileServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // A connection wakes the server up.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

/// The commit that the server announces where it has no branch.
const TIP: &str = "0123456789abcdef0123456789abcdef01234567";

fn serve(connection: TcpStream, malice: Malice, good: &Good, over: &AtomicBool) -> std::io::Result<()> {
    let tip = &good.tip;
    let mut out = connection.try_clone()?;
    let request = request(connection, &mut out)?;
    let kind = if request.starts_with("GET") { "advertisement" } else { "result" };
    write!(out, "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-{kind}\r\nConnection: close\r\n\r\n")?;
    if request.starts_with("GET") {
        out.write_all(&[&line("# service=git-upload-pack\n"), b"0000".as_slice(), &line("version 2\n")].concat())?;
        out.write_all(&[line("ls-refs\n"), line("fetch=shallow\n"), line("object-format=sha1\n")].concat())?;
        if malice == Malice::EndlessCapabilities {
            return endlessly(&mut out, |n| line(&format!("x-{n}={}\n", "x".repeat(1000))));
        }
        return out.write_all(b"0000");
    }
    if request.contains("command=ls-refs") {
        out.write_all(&line(&format!("{tip} refs/heads/deployments\n")))?;
        if malice == Malice::EndlessRefs {
            return endlessly(&mut out, |n| line(&format!("{TIP} refs/heads/deployments-{n}{}\n", "x".repeat(200))));
        }
        return out.write_all(b"0000");
    }
    if malice == Malice::ManyEnds {
        out.write_all(&line("shallow-info\n"))?;
        (0..250_000).try_for_each(|end| out.write_all(&line(&format!("shallow {end:040x}\n"))))?;
        out.write_all(b"0001")?;
    }
    out.write_all(&line("packfile\n"))?;
    match malice {
        Malice::ManyEnds => out.write_all(&[packed(&good.pack), b"0000".to_vec()].concat()),
        Malice::EndlessPack => {
            out.write_all(&packed(&header(MANY)))?;
            // The first bytes make each blob a different one. Making all its bytes anew would take longer than receiving them.
            let rest = Summed::new(&noise(0, 60_000 - size_of::<u64>()));
            endlessly(&mut out, |n| {
                let blob = Summed::new(&n.to_le_bytes()).followed_by(&rest);
                packed(&entry(BLOB, blob.bytes.len(), &blob.stored()))
            })
        }
        Malice::EndlessZeros => {
            out.write_all(&packed(&header(MANY)))?;
            endlessly(&mut out, |n| {
                let size = 50_000_000 + usize::try_from(n).unwrap();
                packed(&entry(BLOB, size, &zeros(size)))
            })
        }
        Malice::Unfolding => out.write_all(&[packed(&unfolding()), b"0000".to_vec()].concat()),
        Malice::Dripping => {
            let bytes = [header(MANY), entry(BLOB, 60_000, &Summed::new(&noise(0, 60_000)).stored())].concat();
            for byte in bytes {
                out.write_all(&packed(&[byte]))?;
                std::thread::sleep(Duration::from_secs(1));
                if over.load(Ordering::SeqCst) {
                    break;
                }
            }
            Ok(())
        }
        Malice::Stopping | Malice::EndlessCapabilities | Malice::EndlessRefs => {
            out.write_all(&packed(&header(MANY)))?;
            // This waits until the client hangs up.
            out.read_to_end(&mut Vec::new()).map(drop)
        }
    }
}

/// One HTTP request: its first line and its body.
fn request(connection: TcpStream, out: &mut TcpStream) -> std::io::Result<String> {
    let mut input = BufReader::new(connection);
    let mut head = String::new();
    while input.read_line(&mut head)? > 2 {}
    let has = |text: &str| head.to_ascii_lowercase().contains(text);
    if has("expect: 100-continue") {
        out.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let mut body = String::new();
    if has("transfer-encoding: chunked") {
        // Reading lines, with the sizes of the chunks among them, is enough to find a command.
        while !body.ends_with("0\r\n\r\n") && input.read_line(&mut body)? > 0 {}
    } else if let Some(length) =
        head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok())
    {
        input.take(length).read_to_string(&mut body)?;
    }
    Ok(head + &body)
}

fn endlessly(out: &mut TcpStream, piece: impl Fn(u64) -> Vec<u8>) -> std::io::Result<()> {
    (0..).try_for_each(|number| out.write_all(&piece(number)))
}

/// A line of git's protocol.
fn line(text: &str) -> Vec<u8> {
    format!("{:04x}{text}", text.len() + 4).into_bytes()
}

/// Bytes of a pack, on the side band for packs.
fn packed(bytes: &[u8]) -> Vec<u8> {
    let piece = |bytes: &[u8]| [format!("{:04x}\x01", bytes.len() + 5).as_bytes(), bytes].concat();
    bytes.chunks(65_000).flat_map(piece).collect()
}

/// So many objects that no client receives them all, and few enough that a client can allocate room for them beforehand.
const MANY: u32 = 250_000;
const BLOB: u8 = 3;
const OFFSET_DELTA: u8 = 6;

fn header(objects: u32) -> Vec<u8> {
    [b"PACK".as_slice(), &2_u32.to_be_bytes(), &objects.to_be_bytes()].concat()
}

/// An object in a pack: its type and size, then its content, compressed.
fn entry(kind: u8, size: usize, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind << 4 | low_bits(size, 4)];
    bytes.extend(size_bytes(size >> 4));
    if bytes.len() > 1 {
        bytes[0] |= 0x80;
    }
    bytes.extend_from_slice(content);
    bytes
}

fn low_bits(number: usize, bits: u32) -> u8 {
    u8::try_from(number & ((1 << bits) - 1)).unwrap()
}

/// A number, seven bits a byte, the lowest first; nothing for zero.
fn size_bytes(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0 {
        bytes.push(low_bits(number, 7) | if number >> 7 > 0 { 0x80 } else { 0 });
        number >>= 7;
    }
    bytes
}

/// Bytes with their checksum (Adler-32).
struct Summed {
    bytes: Vec<u8>,
    sums: (u32, u32),
}

impl Summed {
    const MODULUS: u32 = 65_521;

    fn new(bytes: &[u8]) -> Self {
        let (mut a, mut b) = (1, 0);
        for byte in bytes {
            a = (a + u32::from(*byte)) % Self::MODULUS;
            b = (b + a) % Self::MODULUS;
        }
        Self { bytes: bytes.to_vec(), sums: (a, b) }
    }

    /// The checksum of both parts, computed from the two checksums.
    fn followed_by(&self, next: &Self) -> Self {
        let ((a, b), (next_a, next_b)) = (self.sums, next.sums);
        // The sums of `next` begin at 1, and have to begin at `a`.
        let more = a + Self::MODULUS - 1;
        let length = u32::try_from(next.bytes.len()).unwrap() % Self::MODULUS;
        let carried = u64::from(more % Self::MODULUS) * u64::from(length) % u64::from(Self::MODULUS);
        let sums = ((next_a + more) % Self::MODULUS, (b + next_b + u32::try_from(carried).unwrap()) % Self::MODULUS);
        Self { bytes: [&self.bytes[..], &next.bytes].concat(), sums }
    }

    /// A zlib stream that holds them as they are; at most 65,535.
    fn stored(&self) -> Vec<u8> {
        let length = u16::try_from(self.bytes.len()).unwrap();
        let head = [&[0x78, 0x01, 0x01][..], &length.to_le_bytes(), &(!length).to_le_bytes()].concat();
        let (a, b) = self.sums;
        [&head[..], &self.bytes, &(b << 16 | a).to_be_bytes()].concat()
    }
}

/// A zlib stream that unfolds into `size` zeros: one of them, and copies of 258 of it, each of 13 bits.
fn zeros(size: usize) -> Vec<u8> {
    let mut bits = Bits { bytes: vec![0x78, 0x01], buffer: 0, filled: 0 };
    bits.push(0b011, 3);
    let literals = 1 + (size - 1) % 258;
    (0..literals).for_each(|_| bits.push(0b0000_1100, 8));
    // Length 258 is the code 285, and distance 1 the code 0; codes stand with their highest bit first.
    (0..(size - 1) / 258).for_each(|_| bits.push(0b1010_0011, 13));
    bits.push(0, 7);
    bits.push(0, 7);
    let checksum = u32::try_from(size % 65_521).unwrap() << 16 | 1;
    [bits.bytes, checksum.to_be_bytes().to_vec()].concat()
}

struct Bits {
    bytes: Vec<u8>,
    buffer: u32,
    filled: u32,
}

impl Bits {
    fn push(&mut self, value: u32, count: u32) {
        self.buffer |= value << self.filled;
        self.filled += count;
        while self.filled >= 8 {
            self.bytes.push(low_bits(self.buffer as usize, 8));
            self.buffer >>= 8;
            self.filled -= 8;
        }
    }
}

/// One blob of 60 MB of zeros, and sixty more, made of it and of each other by putting another byte at their beginning.
fn unfolding() -> Vec<u8> {
    let size = 60_000_000_usize;
    let mut pack = header(61);
    let mut base = pack.len();
    pack.extend(entry(BLOB, size, &zeros(size)));
    for number in 0..60_u8 {
        let mut delta = [size_bytes(size), size_bytes(size), vec![1, number + 1]].concat();
        // Copies of at most 0xffffff bytes.
        let mut at = 1;
        while at < size {
            let count = (size - at).min(0xff_ffff);
            delta.push(0xff);
            delta.extend_from_slice(&u32::try_from(at).unwrap().to_le_bytes());
            delta.extend_from_slice(&u32::try_from(count).unwrap().to_le_bytes()[..3]);
            at += count;
        }
        let here = pack.len();
        let content = [offset(here - base), Summed::new(&delta).stored()].concat();
        pack.extend(entry(OFFSET_DELTA, delta.len(), &content));
        // The last of five is what the next five are made of.
        if number % 5 == 4 {
            base = here;
        }
    }
    let mut checksum = gix::hash::hasher(gix::hash::Kind::Sha1);
    checksum.update(&pack);
    pack.extend_from_slice(checksum.try_finalize().unwrap().as_slice());
    pack
}

/// How far back the base of a delta is, as packs write it.
fn offset(mut distance: usize) -> Vec<u8> {
    let mut bytes = vec![low_bits(distance, 7)];
    while distance >> 7 > 0 {
        distance = (distance >> 7) - 1;
        bytes.insert(0, low_bits(distance, 7) | 0x80);
    }
    bytes
}

/// Bytes that do not repeat.
fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(count).collect()
}
