//! Searching for objects and reading their attributes. A module is given room, and nothing it says of lengths and numbers
//! is believed beyond that.

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_ATTRIBUTE_TYPE, CK_BBOOL, CK_FALSE, CK_OBJECT_HANDLE, CK_RV, CK_TRUE, CK_ULONG,
    CK_UNAVAILABLE_INFORMATION, CKR_ATTRIBUTE_SENSITIVE, CKR_ATTRIBUTE_TYPE_INVALID, CKR_BUFFER_TOO_SMALL, CKR_OK,
};

use super::class::Function;
use super::fault::{self, NativeError};
use super::session::NativeSession;
use crate::config::Profile;
use crate::model::Fault;

/// Handles asked for at a time.
const HANDLES: usize = 16;
/// More objects than that no search of ours has to do with.
const OBJECTS_MAX: usize = 1024;
/// No attribute we ask for is longer: a module that says so tells it not.
const VALUE_MAX: usize = 64 << 10;

/// A value that is passed to the module.
#[derive(Clone, Copy)]
pub(super) enum Value<'v> {
    Number(CK_ULONG),
    Bytes(&'v [u8]),
    Flag(bool),
}

/// Yes and no, as they are passed: one byte each.
static FLAGS: [[CK_BBOOL; 1]; 2] = [[CK_FALSE], [CK_TRUE]];

/// Attributes with their values: what a search asks for, of each object all of it, or what a new key is to have.
pub(super) type Template<'v> = [(CK_ATTRIBUTE_TYPE, Value<'v>)];

/// A template in C's form, as long as it is borrowed. The module must not change the values.
pub(super) fn native(template: &Template<'_>) -> Vec<CK_ATTRIBUTE> {
    let attribute = |(kind, value): &(CK_ATTRIBUTE_TYPE, Value<'_>)| {
        let (place, len) = match value {
            Value::Number(number) => (std::ptr::from_ref(number).cast::<u8>(), size_of::<CK_ULONG>()),
            Value::Bytes(bytes) => (bytes.as_ptr(), bytes.len()),
            Value::Flag(flag) => (FLAGS[usize::from(*flag)].as_ptr(), size_of::<CK_BBOOL>()),
        };
        CK_ATTRIBUTE { type_: *kind, pValue: place.cast_mut().cast(), ulValueLen: len as CK_ULONG }
    };
    template.iter().map(attribute).collect()
}

/// An attribute that is asked for: first how long it is, then for itself.
pub(super) struct Wanted {
    kind: CK_ATTRIBUTE_TYPE,
    /// In words, since modules write numbers there. Empty while only the length is asked for.
    room: Vec<CK_ULONG>,
    /// Bytes of room that the module is told of.
    room_bytes: usize,
    /// Bytes of the value, by the module's word.
    len: CK_ULONG,
}

impl Wanted {
    fn new(kind: CK_ATTRIBUTE_TYPE) -> Wanted {
        Wanted { kind, room: Vec::new(), room_bytes: 0, len: 0 }
    }

    /// In C's form, as long as it is borrowed: null, or with as much room as it says.
    pub(super) fn native(&mut self) -> CK_ATTRIBUTE {
        let place = if self.room.is_empty() { std::ptr::null_mut() } else { self.room.as_mut_ptr().cast() };
        CK_ATTRIBUTE { type_: self.kind, pValue: place, ulValueLen: self.room_bytes as CK_ULONG }
    }

    /// Takes over the length that the module says.
    pub(super) fn told(&mut self, attribute: &CK_ATTRIBUTE) {
        self.len = attribute.ulValueLen;
    }

    /// Makes the room that the module asks for. False if there is nothing to be had.
    fn make_room(&mut self) -> bool {
        match usize::try_from(self.len) {
            Ok(len @ 1..=VALUE_MAX) => {
                self.room = vec![0; len.div_ceil(size_of::<CK_ULONG>())];
                self.room_bytes = len;
                true
            }
            _ => false,
        }
    }

    /// Whether the module says to have written more than there was room for.
    fn is_too_long(&self) -> bool {
        self.room_bytes > 0 && self.len != CK_UNAVAILABLE_INFORMATION && self.len > self.room_bytes as CK_ULONG
    }

    /// The value, once it was written; `None` where the module does not tell it.
    fn value(&self) -> Option<Vec<u8>> {
        let len = usize::try_from(self.len).ok().filter(|len| *len <= self.room_bytes)?;
        Some(self.room.iter().flat_map(|word| word.to_ne_bytes()).take(len).collect())
    }
}

/// The objects that fit a template.
pub(super) fn find(
    session: &NativeSession,
    template: &Template<'_>,
    profile: Profile,
) -> Result<Vec<CK_OBJECT_HANDLE>, NativeError> {
    let rv = session.table().find_objects_init(session.handle(), template);
    if rv != CKR_OK {
        return Err(fault::from_rv(profile, Function::FindObjects, rv));
    }
    let found = collect(session, profile);
    // A search that it leaves open is told by the next one.
    let _ = session.table().find_objects_final(session.handle());
    found
}

fn collect(session: &NativeSession, profile: Profile) -> Result<Vec<CK_OBJECT_HANDLE>, NativeError> {
    let mut found = Vec::new();
    while found.len() < OBJECTS_MAX {
        let (mut room, mut count) = ([0; HANDLES], 0);
        let rv = session.table().find_objects(session.handle(), &mut room, &mut count);
        if rv != CKR_OK {
            return Err(fault::from_rv(profile, Function::FindObjects, rv));
        }
        let Some(more) = usize::try_from(count).ok().and_then(|count| room.get(..count)) else {
            let what = format!("{count} objects, where {HANDLES} at the most were asked for");
            return Err(fault::unreadable(Function::FindObjects, &what));
        };
        found.extend_from_slice(more);
        if more.len() < HANDLES {
            return Ok(found);
        }
    }
    Err(fault::keep(Fault::invalid(format!("{OBJECTS_MAX} objects and more match; name the key by its key_id"))))
}

/// These attributes of an object, in their order; `None` for each that it does not have or tell.
pub(super) fn read<const N: usize>(
    session: &NativeSession,
    object: CK_OBJECT_HANDLE,
    kinds: [CK_ATTRIBUTE_TYPE; N],
    profile: Profile,
) -> Result<[Option<Vec<u8>>; N], NativeError> {
    let mut wanted = kinds.map(Wanted::new);
    let lengths = session.table().get_attribute_value(session.handle(), object, &mut wanted.each_mut());
    if lengths != CKR_BUFFER_TOO_SMALL {
        check(lengths, profile)?;
    }
    let mut there: Vec<&mut Wanted> = wanted.iter_mut().filter_map(|one| one.make_room().then_some(one)).collect();
    if !there.is_empty() {
        check(session.table().get_attribute_value(session.handle(), object, &mut there), profile)?;
    }
    if let Some(long) = wanted.iter().find(|one| one.is_too_long()) {
        let what = format!("attribute {:#x} has {} bytes, and had {} before", long.kind, long.len, long.room_bytes);
        return Err(fault::unreadable(Function::GetAttributeValue, &what));
    }
    Ok(wanted.map(|one| one.value()))
}

/// Refuses an answer that says more than that some of the attributes cannot be had.
fn check(rv: CK_RV, profile: Profile) -> Result<(), NativeError> {
    match rv {
        CKR_OK | CKR_ATTRIBUTE_SENSITIVE | CKR_ATTRIBUTE_TYPE_INVALID => Ok(()),
        rv => Err(fault::from_rv(profile, Function::GetAttributeValue, rv)),
    }
}
