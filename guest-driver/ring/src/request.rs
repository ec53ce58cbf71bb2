// SPDX-License-Identifier: GPL-2.0-only
//! One request to the device, and what its answer can say.

use core::fmt;
use dk_abi::{Header, ID_LEN, KNOB_VALUE_LEN};

/// What is asked of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Read sectors.
    Read {
        /// First sector, in units of [`dk_abi::SECTOR_SIZE`].
        sector: u64,
        /// Bytes; a multiple of the sector size.
        len: usize,
    },
    /// Write sectors.
    Write {
        /// First sector, in units of [`dk_abi::SECTOR_SIZE`].
        sector: u64,
        /// What to write; a multiple of the sector size.
        data: &'a [u8],
    },
    /// Ask for the disk's id. The answer is [`ID_LEN`] bytes, padded with zeroes.
    GetId,
    /// Read a knob. The answer is [`KNOB_VALUE_LEN`] bytes, little endian.
    KnobGet {
        /// The knob's index.
        knob: u64,
    },
    /// Set a knob.
    KnobSet {
        /// The knob's index.
        knob: u64,
        /// The new value.
        value: u64,
    },
}

/// Which way a request's data buffer goes, and its length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    ToDevice(usize),
    FromDevice(usize),
}

impl Data {
    pub(crate) fn len(self) -> usize {
        match self {
            Self::ToDevice(len) | Self::FromDevice(len) => len,
        }
    }
}

impl Request<'_> {
    /// The header that goes in front of the request.
    pub(crate) fn header(&self) -> Header {
        let (kind, sector) = match *self {
            Self::Read { sector, .. } => (dk_abi::READ, sector),
            Self::Write { sector, .. } => (dk_abi::WRITE, sector),
            Self::GetId => (dk_abi::GET_ID, 0),
            Self::KnobGet { knob } => (dk_abi::KNOB_GET, knob),
            Self::KnobSet { knob, .. } => (dk_abi::KNOB_SET, knob),
        };
        Header { kind, sector }
    }

    pub(crate) fn data(&self) -> Data {
        match self {
            Self::Read { len, .. } => Data::FromDevice(*len),
            Self::Write { data, .. } => Data::ToDevice(data.len()),
            Self::GetId => Data::FromDevice(ID_LEN),
            Self::KnobGet { .. } => Data::FromDevice(KNOB_VALUE_LEN),
            Self::KnobSet { .. } => Data::ToDevice(KNOB_VALUE_LEN),
        }
    }

    /// Writes what the device shall read into `data`, of [`Data::len`] bytes.
    pub(crate) fn fill(&self, data: &mut [u8]) {
        match self {
            Self::Write { data: from, .. } => data.copy_from_slice(from),
            Self::KnobSet { value, .. } => data.copy_from_slice(&value.to_le_bytes()),
            Self::Read { .. } | Self::GetId | Self::KnobGet { .. } => {}
        }
    }
}

/// The device answered, and not with success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It understood the request and failed ([`dk_abi::STATUS_IOERR`]).
    Io,
    /// It doesn't know the request or the knob ([`dk_abi::STATUS_UNSUPP`]).
    Unsupported,
    /// It left a status byte that virtio-blk doesn't define.
    BadStatus(u8),
    /// There is no answer yet. The request is abandoned by asking.
    Unanswered,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io => f.write_str("the device failed the request"),
            Self::Unsupported => f.write_str("the device doesn't know the request"),
            Self::BadStatus(status) => write!(f, "the device left the status byte {status:#04x}"),
            Self::Unanswered => f.write_str("the device hasn't answered the request"),
        }
    }
}

impl core::error::Error for Failure {}

/// Decodes a request's status byte.
pub(crate) fn decode_status(status: u8) -> Result<(), Failure> {
    match status {
        dk_abi::STATUS_OK => Ok(()),
        dk_abi::STATUS_IOERR => Err(Failure::Io),
        dk_abi::STATUS_UNSUPP => Err(Failure::Unsupported),
        other => Err(Failure::BadStatus(other)),
    }
}
