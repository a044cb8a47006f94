//! What runner and worker say to each other: pieces of text, each after its length. A question is an expression and a
//! message; the answer is a byte and a text.

use std::io::{self, Read, Write};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::broker::message::MAX_PAYLOAD;

/// The longest piece, in bytes.
const LONGEST: usize = MAX_PAYLOAD + 1;

/// The first byte of an answer that is a result.
pub const RESULT: u8 = b'=';
/// The first byte of an answer that is an error.
pub const ERROR: u8 = b'!';

/// Writes a piece.
///
/// # Errors
/// It is too long, or nobody reads it.
pub fn write(to: &mut impl Write, piece: &[u8]) -> io::Result<()> {
    to.write_all(&length(piece)?)?;
    to.write_all(piece)
}

/// Reads a piece; `None` when there are no more.
///
/// # Errors
/// It is too long, or breaks off.
pub fn read(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; 4];
    match from.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let mut piece = vec![0; size(head)?];
    from.read_exact(&mut piece)?;
    Ok(Some(piece))
}

/// Writes a piece.
///
/// # Errors
/// As for [`write()`].
pub async fn send(to: &mut (impl AsyncWrite + Unpin), piece: &[u8]) -> io::Result<()> {
    to.write_all(&length(piece)?).await?;
    to.write_all(piece).await
}

/// Reads a piece.
///
/// # Errors
/// As for [`read`], and where there are no more.
pub async fn receive(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut head = [0; 4];
    from.read_exact(&mut head).await?;
    let mut piece = vec![0; size(head)?];
    from.read_exact(&mut piece).await?;
    Ok(piece)
}

fn length(piece: &[u8]) -> io::Result<[u8; 4]> {
    let length = u32::try_from(piece.len()).ok().filter(|_| piece.len() <= LONGEST);
    length.map(u32::to_be_bytes).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

fn size(head: [u8; 4]) -> io::Result<usize> {
    let size = usize::try_from(u32::from_be_bytes(head)).ok().filter(|size| *size <= LONGEST);
    size.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}
