//! Calls as bytes: arguments into a record, out of it again, and results back into it.
//!
//! Invariant: [`CallWriter`] and [`Params`] agree because both are driven by the function's parameter types; what is
//! read is what this process wrote. Left out: what a user may pass where (`api`'s `Arg`).

use std::sync::{Arc, OnceLock};

use super::INLINE_MAX;
use super::cell::{self, BODY, Blank, PAD, Phase, RawRef, Record, SLOT, Slot, SlotTag};
use super::entry::{FnEntry, Kind};
use super::local::Local;
use crate::base::{Error, Failure, Origin};
use crate::store::Draft;
use crate::value::{Archived, Cap, Native, Place, Placed, Ser, Value, decode, root};

/// What running a call gives: nothing (the value is in the record) or why there is none.
pub type Outcome = Result<(), CallError>;

/// Why a call has no value.
#[derive(Debug)]
pub enum CallError {
    /// The function said so.
    Function(Failure),
    /// The runtime did.
    Runtime(Error),
}

impl From<Error> for CallError {
    fn from(e: Error) -> CallError {
        CallError::Runtime(e)
    }
}

/// A pointer to an actor's state, or nothing for tasks.
#[derive(Clone, Copy, Debug)]
pub struct StateRef(pub *mut ());
// SAFETY: actor states are Send, and whoever gets the pointer holds the actor's run lock or its admission.
unsafe impl Send for StateRef {}

/// An entry for objects that no call made.
pub static PUT: FnEntry = FnEntry::inert("put", Kind::Object);

/// Arguments that together are one `Vec`.
pub struct Many {
    pub(super) parts: Vec<RawRef>,
    joined: OnceLock<Result<RawRef, Error>>,
    join: fn(&Local, &[RawRef]) -> Result<RawRef, Error>,
}

/// Writes one call's arguments.
pub struct CallWriter<'a> {
    local: &'a Local,
    function: &'static str,
    ser: super::local::SerGuard<'a>,
    written: usize,
    /// Some argument is a reference, so that the call may have to wait.
    pub(super) refers: bool,
    error: Option<Error>,
}

impl<'a> CallWriter<'a> {
    /// Begins a call with `count` arguments.
    #[inline]
    pub fn new(local: &'a Local, function: &'static str, count: usize) -> CallWriter<'a> {
        let mut ser = local.borrow_ser();
        ser.begin(BODY + count * SLOT);
        CallWriter {
            local,
            function,
            ser,
            written: 0,
            refers: false,
            error: None,
        }
    }

    #[inline]
    fn slot(&mut self, slot: Slot) {
        slot.write_to(self.ser.head_mut(BODY + self.written * SLOT, SLOT));
        self.written += 1;
    }

    /// An argument by value.
    #[inline]
    pub fn value<T: Value>(&mut self, value: &T) {
        let start = self.ser.pos();
        match self.ser.place(value) {
            Ok(Placed::Scratch) if self.ser.pos() - start <= INLINE_MAX => {
                let end = self.ser.pos() as u32;
                self.slot(Slot {
                    tag: SlotTag::Inline,
                    end,
                    ptr: std::ptr::null_mut(),
                });
            }
            other => self.large(value, start, other),
        }
    }

    #[cold]
    fn large<T: Value>(
        &mut self,
        value: &T,
        start: usize,
        placed: Result<Placed, crate::value::CodecError>,
    ) {
        if matches!(placed, Ok(Placed::Scratch)) {
            self.ser.rewind(start);
        }
        // The value's own references go with its object, not with the call: a writer of its own keeps them apart.
        let object = match placed {
            Ok(_) => put(self.local, value, Origin::Argument(self.function)),
            Err(e) => Err(encode_error::<T>(&e)),
        };
        match object {
            Ok(object) => self.reference(object),
            Err(e) => {
                self.error.get_or_insert(e);
            }
        }
    }

    /// The function called, for messages.
    pub fn function(&self) -> &'static str {
        self.function
    }

    /// The call cannot be made.
    pub fn fail(&mut self, why: Error) {
        self.error.get_or_insert(why);
    }

    /// An argument that is an object, or will be.
    #[inline]
    pub fn reference(&mut self, object: RawRef) {
        self.refers = true;
        self.slot(Slot {
            tag: SlotTag::Ref,
            end: 0,
            ptr: object.into_raw().cast(),
        });
    }

    /// An argument that is a `Vec` of the values of many objects.
    pub fn references<T: Value>(&mut self, parts: Vec<RawRef>) {
        self.refers = true;
        let many = Many {
            parts,
            joined: OnceLock::new(),
            join: join::<T>,
        };
        let ptr = Box::into_raw(Box::new(many)).cast();
        self.slot(Slot {
            tag: SlotTag::Many,
            end: 0,
            ptr,
        });
    }

    /// The finished record, and whether it holds references; or a failed one.
    #[inline]
    pub(super) fn finish(mut self, mut blank: Blank, result_size: usize) -> (RawRef, bool) {
        if let Some(e) = self.error.take() {
            blank.refs = 1;
            return (cell::failed(blank, e), false);
        }
        blank.caps = self.ser.take_caps();
        // SAFETY: that many slots were written at the beginning, and what they own goes to the record.
        let record = unsafe {
            cell::with_args(
                blank,
                self.written,
                self.ser.padded(BODY),
                self.ser.pos(),
                result_size,
            )
        };
        self.written = 0;
        (record, self.refers)
    }
}

impl Drop for CallWriter<'_> {
    #[inline]
    fn drop(&mut self) {
        for i in 0..self.written {
            let slot = Slot::read_from(self.ser.head_mut(BODY + i * SLOT, SLOT));
            // SAFETY: written and still ours: an error or a panic came before `finish`.
            unsafe { drop_slot(slot) };
        }
    }
}

/// # Safety
/// The caller owns what the slot owns.
pub(super) unsafe fn drop_slot(slot: Slot) {
    // SAFETY: the caller's promise.
    unsafe {
        match slot.tag {
            SlotTag::Inline => {}
            SlotTag::Ref => drop(RawRef::from_raw(slot.ptr.cast())),
            SlotTag::Many => drop(Box::from_raw(slot.ptr.cast::<Many>())),
        }
    }
}

/// Calls `f` for every object that the record's arguments refer to, until it says stop.
///
/// # Safety
/// As for [`Record::slots`].
pub(super) unsafe fn each_input(record: &Record, mut f: impl FnMut(&RawRef)) {
    // SAFETY: the caller's promise; the slots own counts of what they point to.
    unsafe {
        for slot in record.slots() {
            match slot.tag {
                SlotTag::Inline => {}
                SlotTag::Ref => {
                    let r = std::mem::ManuallyDrop::new(RawRef::from_raw(slot.ptr.cast()));
                    f(&r);
                }
                SlotTag::Many => (*slot.ptr.cast::<Many>()).parts.iter().for_each(&mut f),
            }
        }
    }
}

fn join<T: Value>(local: &Local, parts: &[RawRef]) -> Result<RawRef, Error> {
    let mut all = Vec::with_capacity(parts.len());
    for part in parts {
        all.push(read::<T>(part)?);
    }
    put(local, &all, Origin::Argument("a Vec of references"))
}

/// What an archiving error looks like to the user.
pub fn encode_error<T>(e: &crate::value::CodecError) -> Error {
    Error::Encode {
        value: std::any::type_name::<T>(),
        why: Arc::from(e.to_string()),
    }
}

/// What a decoding error looks like to the user.
pub fn decode_error<T>(e: &crate::value::CodecError) -> Error {
    Error::Decode {
        expected: std::any::type_name::<T>(),
        why: Arc::from(e.to_string()),
    }
}

/// A blank for an object that is there already.
#[inline]
pub fn object_blank(local: &Local, caps: Option<Box<[Cap]>>) -> Blank {
    Blank {
        entry: &PUT,
        refs: 1,
        phase: Phase::Done,
        caller: 0,
        id: local.next_object(),
        target: None,
        extra: None,
        caps,
    }
}

/// An object from a value: inside its record when small, else in the store.
pub fn put<T: Value>(local: &Local, value: &T, origin: Origin) -> Result<RawRef, Error> {
    let mut ser = local.borrow_ser();
    ser.begin(BODY);
    let placed = ser.place(value).map_err(|e| encode_error::<T>(&e))?;
    match placed {
        Placed::Scratch => {
            let caps = ser.take_caps();
            let archive = &ser.bytes()[BODY..];
            if archive.len() <= INLINE_MAX {
                return Ok(cell::with_inline_value(object_blank(local, caps), archive));
            }
            let sealed = store_padded(local, archive, origin)?;
            Ok(cell::with_stored_value(object_blank(local, caps), sealed))
        }
        Placed::Measured(size) => {
            let (sealed, caps) = store_measured(local, &mut ser, value, size, origin)?;
            Ok(cell::with_stored_value(object_blank(local, caps), sealed))
        }
    }
}

/// Bytes written at positions from [`BODY`] go to a place congruent to it.
fn store_padded(
    local: &Local,
    archive: &[u8],
    origin: Origin,
) -> Result<crate::store::Sealed, Error> {
    let mut draft = local.engine.store().create(PAD + archive.len(), origin)?;
    draft[..PAD].fill(0);
    draft.write_at(PAD, archive);
    Ok(draft.seal())
}

impl Place for Draft {
    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }
    fn write_at(&mut self, pos: usize, piece: &[u8]) {
        Draft::write_at(self, pos, piece);
    }
}

impl Place for crate::shm::Lease {
    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }
    fn write_at(&mut self, pos: usize, piece: &[u8]) {
        self[pos..pos + piece.len()].copy_from_slice(piece);
    }
}

fn store_measured<T: Value>(
    local: &Local,
    ser: &mut Ser,
    value: &T,
    size: usize,
    origin: Origin,
) -> Result<(crate::store::Sealed, Option<Box<[Cap]>>), Error> {
    let mut draft = local.engine.store().create(size, origin)?;
    ser.write_into(value, &mut draft)
        .map_err(|e| encode_error::<T>(&e))?;
    Ok((draft.seal(), ser.take_caps()))
}

/// Puts a call's value into its record, whose arguments are dropped first.
///
/// # Safety
/// The caller holds the record's claim and no borrow of its arguments is alive.
#[inline]
pub unsafe fn set_value<T: Value>(local: &Local, record: &RawRef, value: &T) -> Result<(), Error> {
    // SAFETY: the caller's promise, for every call below.
    unsafe {
        record.drop_args();
        let mut ser = local.borrow_ser();
        ser.begin(BODY);
        match ser.place(value).map_err(|e| encode_error::<T>(&e))? {
            Placed::Scratch => {
                let caps = ser.take_caps();
                let archive = &ser.bytes()[BODY..];
                if archive.len() <= record.room() {
                    record.set_inline(archive, caps);
                } else if archive.len() <= INLINE_MAX {
                    record.set_boxed(archive, caps);
                } else if super::isolate::in_worker() {
                    super::isolate::keep_large(record, archive, caps)?;
                } else {
                    let origin = Origin::Result(record.entry.name);
                    record.set_stored(store_padded(local, archive, origin)?, caps);
                }
            }
            Placed::Measured(size) if super::isolate::in_worker() => {
                let mut lease = super::isolate::lend(size)?;
                ser.write_into(value, &mut lease)
                    .map_err(|e| encode_error::<T>(&e))?;
                record.set_foreign(super::isolate::written(lease), ser.take_caps());
            }
            Placed::Measured(size) => {
                let origin = Origin::Result(record.entry.name);
                let (sealed, caps) = store_measured(local, &mut ser, value, size, origin)?;
                record.set_stored(sealed, caps);
            }
        }
    }
    Ok(())
}

/// The value of a call that ended, or its error. The caller knows that the record's type is `T`.
#[inline]
pub fn read<T: Value>(record: &RawRef) -> Result<T, Error> {
    if cell::phase(record.state()) != Phase::Done {
        return Err(record.error());
    }
    // SAFETY: `Done`, so the bytes are an archive that this process wrote or checked, and immutable; the record was made
    // for a `T` (typed references keep the type).
    unsafe { decode::<T>(record.bytes(), record.caps()) }.map_err(|e| decode_error::<T>(&e))
}

/// The value of a call that succeeded, in place. The caller knows that the record's type is `T` and its phase `Done`.
#[inline]
pub fn archived<T: Value>(record: &RawRef) -> &Archived<T> {
    assert!(
        cell::phase(record.state()) == Phase::Done,
        "only values are viewed"
    );
    // SAFETY: as in `read`.
    unsafe { root::<T>(record.bytes()) }
}

/// One argument, about to be read.
pub struct ArgView<'a, 'l> {
    local: &'l Local,
    record: &'a RawRef,
    index: usize,
}

impl<'a> ArgView<'a, '_> {
    /// The argument's archive and references, wherever they are.
    ///
    /// # Safety
    /// The caller holds the record's claim for `'a` and does not drop its arguments meanwhile.
    #[inline]
    unsafe fn bytes(&self) -> Result<(&'a [u8], &'a [Cap]), Error> {
        // SAFETY: the caller's promise.
        unsafe {
            let slot = self.record.slots()[self.index];
            match slot.tag {
                SlotTag::Inline => Ok((self.record.inline_arg(slot.end), self.record.caps())),
                SlotTag::Ref => input(&*slot.ptr.cast::<Record>(), self.record),
                SlotTag::Many => {
                    let many = &*slot.ptr.cast::<Many>();
                    let object = many.joined(self.local, self.record)?;
                    Ok((object.bytes(), object.caps()))
                }
            }
        }
    }
}

/// The archive of an argument that is an object, or the error of a call that cannot run without it.
fn input<'a>(object: &'a Record, of: &Record) -> Result<(&'a [u8], &'a [Cap]), Error> {
    if cell::phase(object.state()) == Phase::Done {
        // SAFETY: `Done`.
        return Ok((object.bytes(), unsafe { object.caps() }));
    }
    Err(match object.error() {
        Error::DependencyFailed { cause, mut through } => {
            through.push(of.entry.name);
            Error::DependencyFailed { cause, through }
        }
        cause => Error::DependencyFailed {
            cause: Arc::new(cause),
            through: vec![of.entry.name],
        },
    })
}

/// One argument, for whoever sends it elsewhere.
pub(super) enum Argument<'a> {
    /// In the record itself, ending there.
    Inline(u32),
    /// An object, which is there.
    Object(&'a Record),
}

impl Record {
    /// The argument of this index; the error of a call that cannot run without it.
    ///
    /// # Safety
    /// The caller holds the claim and does not drop the arguments while it uses what this gives.
    pub(super) unsafe fn argument(
        &self,
        local: &Local,
        index: usize,
    ) -> Result<Argument<'_>, Error> {
        // SAFETY: the caller's promise; slots own what they point to.
        unsafe {
            let slot = self.slots()[index];
            match slot.tag {
                SlotTag::Inline => Ok(Argument::Inline(slot.end)),
                SlotTag::Ref => {
                    let object = &*slot.ptr.cast::<Record>();
                    input(object, self)?;
                    Ok(Argument::Object(object))
                }
                SlotTag::Many => {
                    let many = &*slot.ptr.cast::<Many>();
                    many.joined(local, self).map(|o| Argument::Object(o))
                }
            }
        }
    }
}

impl Many {
    /// The one object that the many together are.
    fn joined(&self, local: &Local, of: &Record) -> Result<&RawRef, Error> {
        for part in &self.parts {
            input(part, of)?;
        }
        let joined = self.joined.get_or_init(|| (self.join)(local, &self.parts));
        joined.as_ref().map_err(Error::clone)
    }
}

/// How a parameter reads its argument.
pub trait Param {
    /// The type that is archived.
    type Wire: Value;
    /// What the function gets.
    type Decoded<'a>;

    /// Reads it.
    ///
    /// # Safety
    /// `bytes` and `caps` are an archive of `Self::Wire` that stays for `'a`.
    unsafe fn read<'a>(bytes: &'a [u8], caps: &'a [Cap]) -> Result<Self::Decoded<'a>, Error>;
}

/// `T`: an owned copy.
pub struct Owned<T>(std::marker::PhantomData<T>);
/// `&[T]`: numbers read in place.
pub struct Slice<T>(std::marker::PhantomData<T>);
/// `&str`: text read in place.
pub struct Text;
/// `&Archived<T>`: the archive itself.
pub struct InPlace<T>(std::marker::PhantomData<T>);

impl<T: Value> Param for Owned<T> {
    type Wire = T;
    type Decoded<'a> = T;
    #[inline]
    unsafe fn read<'a>(bytes: &'a [u8], caps: &'a [Cap]) -> Result<T, Error> {
        // SAFETY: the caller's promise.
        unsafe { decode::<T>(bytes, caps) }.map_err(|e| decode_error::<T>(&e))
    }
}

impl<T: Native> Param for Slice<T>
where
    Vec<T>: Value<Archived = rkyv::vec::ArchivedVec<Archived<T>>>,
{
    type Wire = Vec<T>;
    type Decoded<'a> = &'a [T];
    #[inline]
    unsafe fn read<'a>(bytes: &'a [u8], _: &'a [Cap]) -> Result<&'a [T], Error> {
        // SAFETY: the caller's promise.
        Ok(T::slice(unsafe { root::<Vec<T>>(bytes) }.as_slice()))
    }
}

impl Param for Text {
    type Wire = String;
    type Decoded<'a> = &'a str;
    #[inline]
    unsafe fn read<'a>(bytes: &'a [u8], _: &'a [Cap]) -> Result<&'a str, Error> {
        // SAFETY: the caller's promise.
        Ok(unsafe { root::<String>(bytes) }.as_str())
    }
}

impl<T: Value> Param for InPlace<T> {
    type Wire = T;
    type Decoded<'a> = &'a Archived<T>;
    #[inline]
    unsafe fn read<'a>(bytes: &'a [u8], _: &'a [Cap]) -> Result<&'a Archived<T>, Error> {
        // SAFETY: the caller's promise.
        Ok(unsafe { root::<T>(bytes) })
    }
}

/// All parameters of a function.
pub trait Params: 'static {
    /// What the function gets.
    type Decoded<'a>;
    /// How many there are.
    const COUNT: usize;

    /// Reads all arguments.
    ///
    /// # Safety
    /// The record was written for these parameters; the caller holds its claim for `'a` and keeps its arguments.
    unsafe fn read<'a>(local: &Local, record: &'a RawRef) -> Result<Self::Decoded<'a>, Error>;
}

macro_rules! params {
    ($($n:literal: $($p:ident $i:tt),*;)*) => { $(
        impl<$($p: Param + 'static),*> Params for ($($p,)*) {
            type Decoded<'a> = ($($p::Decoded<'a>,)*);
            const COUNT: usize = $n;
            #[inline]
            #[allow(unused_variables, clippy::unused_unit)]
            unsafe fn read<'a>(
                local: &Local,
                record: &'a RawRef,
            ) -> Result<Self::Decoded<'a>, Error> {
                Ok(($({
                    let view = ArgView { local, record, index: $i };
                    // SAFETY: the caller's promise, argument by argument.
                    unsafe {
                        let (bytes, caps) = view.bytes()?;
                        $p::read(bytes, caps)?
                    }
                },)*))
            }
        }
    )* };
}
params! {
    0: ;
    1: A 0;
    2: A 0, B 1;
    3: A 0, B 1, C 2;
    4: A 0, B 1, C 2, D 3;
    5: A 0, B 1, C 2, D 3, E 4;
    6: A 0, B 1, C 2, D 3, E 4, F 5;
    7: A 0, B 1, C 2, D 3, E 4, F 5, G 6;
    8: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7;
    9: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8;
    10: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9;
    11: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10;
    12: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11;
}
