//! Frames become messages.

use std::io;

use actix_web::web::{Bytes, BytesMut};
use actix_ws::{AggregatedMessage, Item, Message, ProtocolError};
use bytestring::ByteString;

/// How large a message may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) bytes: usize,
    pub(crate) fragments: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            bytes: 1024 * 1024,
            fragments: 64,
        }
    }
}

impl Bounds {
    fn check(self, bytes: usize) -> Result<(), ProtocolError> {
        match bytes > self.bytes {
            true => Err(ProtocolError::Overflow),
            false => Ok(()),
        }
    }
}

/// Puts the fragments of messages together. `actix_ws::AggregatedMessageStream` bounds their bytes,
/// but not their number: empty ones would be free.
#[derive(Debug)]
pub(crate) struct Assembly {
    bounds: Bounds,
    unfinished: Option<Unfinished>,
}

/// A message, and in how many frames it came.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) message: AggregatedMessage,
    pub(crate) frames: u32,
}

impl From<AggregatedMessage> for Whole {
    fn from(message: AggregatedMessage) -> Self {
        Whole { message, frames: 1 }
    }
}

#[derive(Debug)]
struct Unfinished {
    is_text: bool,
    bytes: BytesMut,
    fragments: u32,
}

impl Assembly {
    pub(crate) fn new(bounds: Bounds) -> Assembly {
        Assembly {
            bounds,
            unfinished: None,
        }
    }

    /// The message that a frame completes. Control frames may come between fragments.
    pub(crate) fn take(&mut self, frame: Message) -> Result<Option<Whole>, ProtocolError> {
        let whole = match frame {
            Message::Text(text) => {
                self.bounds.check(text.len())?;
                AggregatedMessage::Text(text)
            }
            Message::Binary(bytes) => {
                self.bounds.check(bytes.len())?;
                AggregatedMessage::Binary(bytes)
            }
            Message::Ping(bytes) => AggregatedMessage::Ping(bytes),
            Message::Pong(bytes) => AggregatedMessage::Pong(bytes),
            Message::Close(reason) => AggregatedMessage::Close(reason),
            Message::Continuation(item) => return self.take_fragment(item),
            Message::Nop => return Ok(None),
        };
        Ok(Some(whole.into()))
    }

    fn take_fragment(&mut self, item: Item) -> Result<Option<Whole>, ProtocolError> {
        let (fragment, is_last) = match item {
            Item::FirstText(bytes) => (self.begin(true, bytes)?, false),
            Item::FirstBinary(bytes) => (self.begin(false, bytes)?, false),
            Item::Continue(bytes) => (bytes, false),
            Item::Last(bytes) => (bytes, true),
        };
        let Some(unfinished) = &mut self.unfinished else {
            return Err(ProtocolError::ContinuationNotStarted);
        };
        unfinished.fragments += 1;
        if unfinished.fragments > self.bounds.fragments {
            return Err(ProtocolError::Overflow);
        }
        self.bounds.check(unfinished.bytes.len() + fragment.len())?;
        unfinished.bytes.extend_from_slice(&fragment);
        match self.unfinished.take_if(|_| is_last) {
            Some(finished) => finished.whole().map(Some),
            None => Ok(None),
        }
    }

    fn begin(&mut self, is_text: bool, first: Bytes) -> Result<Bytes, ProtocolError> {
        let unfinished = Unfinished {
            is_text,
            bytes: BytesMut::new(),
            fragments: 0,
        };
        match self.unfinished.replace(unfinished) {
            Some(_) => Err(ProtocolError::ContinuationStarted),
            None => Ok(first),
        }
    }
}

impl Unfinished {
    fn whole(self) -> Result<Whole, ProtocolError> {
        let bytes = self.bytes.freeze();
        let message = match self.is_text {
            false => AggregatedMessage::Binary(bytes),
            true => AggregatedMessage::Text(ByteString::try_from(bytes).map_err(|error| {
                ProtocolError::Io(io::Error::new(io::ErrorKind::InvalidData, error))
            })?),
        };
        Ok(Whole {
            message,
            frames: self.fragments,
        })
    }
}
