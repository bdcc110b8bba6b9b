//! What the client does not do.

use std::cell::RefCell;
use std::io::{self, Read, Write};

use r2d2_memcache::memcache::{Client, MemcacheError, Stream, ToMemcacheValue};

/// Does something with the socket of a client.
///
/// The client hands it to nobody but to a value that writes itself. So a value of no bytes is
/// appended to a key that does not exist, which changes nothing. The work begins within that
/// command: it has to [end](END_OF_VALUE) it, and to read the answer of one line.
pub(super) fn aside<T>(
    client: &Client,
    work: impl FnOnce(&mut Stream) -> io::Result<T>,
) -> Result<T, MemcacheError> {
    let aside = Aside {
        work: RefCell::new(Some(work)),
        done: RefCell::new(None),
    };
    let written = client.append("tfk:nothing", &aside);
    match (aside.done.into_inner(), written) {
        (Some(done), _) => done.map_err(MemcacheError::from),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Err(io::Error::other("the client wrote no value").into()),
    }
}

/// Ends the command within which work begins.
pub(super) const END_OF_VALUE: &str = "\r\n";

/// Sends something and reads what comes, until that is whole.
pub(super) fn ask(
    stream: &mut Stream,
    question: &str,
    is_whole: impl Fn(&str) -> bool,
) -> io::Result<String> {
    stream.write_all(question.as_bytes())?;
    stream.flush()?;
    let (mut text, mut buffer) = (String::new(), [0; 4_096]);
    while !is_whole(&text) {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        if text.len() > LONGEST_ANSWER {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(text)
}

/// Ten times what statistics are, in bytes.
const LONGEST_ANSWER: usize = 32 * 1024;

struct Aside<W, T> {
    work: RefCell<Option<W>>,
    done: RefCell<Option<io::Result<T>>>,
}

impl<T, W: FnOnce(&mut Stream) -> io::Result<T>> ToMemcacheValue<Stream> for &Aside<W, T> {
    fn get_flags(&self) -> u32 {
        0
    }

    fn get_length(&self) -> usize {
        0
    }

    fn write_to(&self, stream: &mut Stream) -> io::Result<()> {
        if let Some(work) = self.work.take() {
            *self.done.borrow_mut() = Some(work(stream));
        }
        // All has been said and read: an error keeps the client from going on.
        Err(io::Error::other("done"))
    }
}
