/* Counting and encoding the words of UTF-8 blocks by byte table, in C.
 *
 * This module is optional: without it the package does the same with `ByteTable.words`, a Counter and a dict, with the
 * same results, only slower. It uses the stable ABI alone, so one build serves every Python from 3.11 on.
 *
 * A block is scanned in short pieces. Each byte goes through a table of 256 classes that does mapping, deleting and
 * splitting at once and without branches: the letters of the words are packed one after the other, and the places
 * where words end are listed. Then the words of the piece are looked up in a hash table. All this runs without the GIL.
 */
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 4096 };  /* bytes scanned at a time: the letters and the ends stay in the first-level cache */
enum { SHORT = 16 };    /* words up to this long stand in their slot; a word is read as this many bytes at once */

/* Set when the module is first loaded. The seeds are random, so that nobody can prepare a text of colliding words;
 * no result depends on them. masks[n] keeps the first n of 16 bytes, whatever the byte order of the machine. */
static uint64_t seeds[2];
static uint64_t masks[SHORT + 1][2];

/* --- the hash table: from word to a number --- */

typedef struct {
    size_t length;
    uint8_t bytes[];
} LongWord;

typedef struct {
    uint64_t key[2];  /* a short word padded with NUL; of a long one its hash and the address of its LongWord */
    uint64_t value;
    uint32_t length;  /* 0: the slot is free; a longer word than fits here has UINT32_MAX (LongWord is exact) */
    uint32_t order;   /* how many words came into the table before this one */
} Slot;

typedef struct {
    Slot *slots;
    size_t mask;      /* the number of slots, a power of two, less one */
    size_t used;
} Table;

static inline uint64_t multiply_fold(uint64_t a, uint64_t b)
{
#ifdef __SIZEOF_INT128__
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
#else  /* not as strong, but enough for a hash */
    a = (a ^ (b << 32 | b >> 32)) * 0x9e3779b97f4a7c15;
    a = (a ^ a >> 32) * (b | 1);
    return a ^ a >> 29;
#endif
}

static inline uint64_t hash_short(const uint64_t key[2])
{
    return multiply_fold(key[0] ^ seeds[0], key[1] ^ seeds[1]);
}

/* Return the hash of a long word; like all that takes a word, it may read (but not use) SHORT bytes past its end. */
static uint64_t hash_long(const uint8_t *word, size_t length)
{
    uint64_t hash = seeds[0] ^ length, part;
    for (; length > 8; word += 8, length -= 8) {
        memcpy(&part, word, 8);
        hash = multiply_fold(hash ^ part, seeds[1]);
    }
    memcpy(&part, word, 8);
    return multiply_fold(hash ^ (part & masks[length][0]), seeds[1]);
}

static const uint8_t *slot_word(const Slot *slot, size_t *length)
{
    if (slot->length <= SHORT) {
        *length = slot->length;
        return (const uint8_t *)slot->key;
    }
    const LongWord *word = (const LongWord *)(uintptr_t)slot->key[1];
    *length = word->length;
    return word->bytes;
}

static void table_free(Table *table)
{
    for (size_t i = 0; table->slots && i <= table->mask; i++)
        if (table->slots[i].length > SHORT)
            free((void *)(uintptr_t)table->slots[i].key[1]);
    free(table->slots);
}

/* Return the slot of a word, or the free slot where it belongs; `key` becomes the first half of what belongs there. */
static inline Slot *table_find(const Table *table, const uint8_t *word, size_t length, uint64_t key[2])
{
    if (length <= SHORT) {
        memcpy(key, word, SHORT);
        key[0] &= masks[length][0];
        key[1] &= masks[length][1];
        for (size_t i = hash_short(key);; i++) {
            Slot *slot = &table->slots[i & table->mask];
            if (((slot->key[0] ^ key[0]) | (slot->key[1] ^ key[1]) | (slot->length ^ length)) == 0 || !slot->length)
                return slot;
        }
    }
    key[0] = hash_long(word, length);
    key[1] = 0;
    for (size_t i = key[0];; i++) {
        Slot *slot = &table->slots[i & table->mask];
        if (!slot->length)
            return slot;
        if (slot->length > SHORT && slot->key[0] == key[0]) {
            size_t there;
            const uint8_t *bytes = slot_word(slot, &there);
            if (there == length && memcmp(bytes, word, length) == 0)
                return slot;
        }
    }
}

static int table_grow(Table *table)
{
    size_t count = (table->mask + 1) * 2;
    Slot *slots = count <= SIZE_MAX / sizeof(Slot) ? calloc(count, sizeof(Slot)) : NULL;
    if (!slots)
        return -1;
    for (size_t old = 0; old <= table->mask; old++) {
        const Slot *slot = &table->slots[old];
        if (!slot->length)
            continue;
        size_t i = slot->length <= SHORT ? hash_short(slot->key) : slot->key[0];
        while (slots[i & (count - 1)].length)
            i++;
        slots[i & (count - 1)] = *slot;
    }
    free(table->slots);
    table->slots = slots;
    table->mask = count - 1;
    return 0;
}

/* Return the slot of a word, which is put in with the value 0 if it is new; NULL: out of memory, nothing changed. */
static inline Slot *table_put(Table *table, const uint8_t *word, size_t length)
{
    uint64_t key[2];
    Slot *slot = table_find(table, word, length, key);
    if (slot->length)
        return slot;
    if (table->used >= (table->mask + 1) / 8 * 5) {
        if (table->used >= UINT32_MAX || table_grow(table) < 0)
            return NULL;
        slot = table_find(table, word, length, key);
    }
    if (length > SHORT) {
        LongWord *copy = length < SIZE_MAX / 2 ? malloc(offsetof(LongWord, bytes) + length + SHORT) : NULL;
        if (!copy)
            return NULL;
        copy->length = length;
        memcpy(copy->bytes, word, length);
        memset(copy->bytes + length, 0, SHORT);
        key[1] = (uintptr_t)copy;
    }
    *slot = (Slot){{key[0], key[1]}, 0, length < UINT32_MAX ? (uint32_t)length : UINT32_MAX, (uint32_t)table->used++};
    return slot;
}

/* Return the used slots (to be freed) in the order in which their words came. */
static Slot **table_ordered(const Table *table)
{
    Slot **ordered = malloc((table->used + 1) * sizeof(Slot *));
    for (size_t i = 0; ordered && i <= table->mask; i++)
        if (table->slots[i].length)
            ordered[table->slots[i].order] = &table->slots[i];
    return ordered;
}

/* --- the rules: from a block to its words --- */

typedef struct {
    const uint8_t *old, *new;
    size_t old_size, new_size;
} Replacement;

typedef struct {
    uint16_t classes[256];      /* the mapped byte, and the flags below */
    const uint8_t *prefix;
    size_t prefix_size;
    Replacement *replacements;
    size_t count;               /* how many of them the scan does: all, or if one pass cannot do them none */
    PyObject *pairs;            /* the replacements as given: a tuple of tuples of two bytes */
    PyObject *drop_prefix;
} Rules;

enum { KEEP = 0x100, SPACE = 0x200, MAYBE = 0x400 };  /* MAYBE: a replacement may start here */

/* Return whether replacing all at once, in one pass from left to right, is sure to give what one after the other gives:
 * no two patterns can overlap, and no replacement can become part of, or bring together, a match of a later pattern. */
static int one_pass(const Replacement *all, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (all[i].new_size == 0 || all[i].new_size > PIECE)
            return 0;
        for (size_t j = 0; j < count; j++) {
            if (i != j && memchr(all[i].old, all[j].old[0], all[i].old_size))
                return 0;
            for (size_t k = 0; i < j && k < all[i].new_size; k++)
                if (memchr(all[j].old, all[i].new[k], all[j].old_size))
                    return 0;
        }
    }
    return 1;
}

static int rules_init(Rules *rules, PyObject *pairs, PyObject *table, PyObject *delete, PyObject *drop_prefix)
{
    rules->pairs = Py_NewRef(pairs);
    rules->drop_prefix = Py_NewRef(drop_prefix);
    rules->prefix = (const uint8_t *)PyBytes_AsString(drop_prefix);
    rules->prefix_size = (size_t)PyBytes_Size(drop_prefix);
    if (PyBytes_Size(table) != 256) {
        PyErr_SetString(PyExc_ValueError, "table must be 256 bytes long");
        return -1;
    }
    for (int byte = 0; byte < 256; byte++) {
        uint8_t to = (uint8_t)PyBytes_AsString(table)[byte];
        int space = to == ' ' || (to >= '\t' && to <= '\r');
        rules->classes[byte] = space ? SPACE : KEEP | to;
    }
    for (Py_ssize_t i = 0; i < PyBytes_Size(delete); i++)
        rules->classes[(uint8_t)PyBytes_AsString(delete)[i]] = 0;

    size_t count = (size_t)PyTuple_Size(pairs);
    rules->replacements = calloc(count + 1, sizeof(Replacement));
    if (!rules->replacements) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        Replacement *one = &rules->replacements[i];
        PyObject *pair = PyTuple_GetItem(pairs, (Py_ssize_t)i), *old, *new;
        if (!PyTuple_Check(pair) || !PyArg_ParseTuple(pair, "SS", &old, &new)) {
            PyErr_SetString(PyExc_TypeError, "a replacement must be a tuple of two bytes objects");
            return -1;
        }
        one->old = (const uint8_t *)PyBytes_AsString(old);
        one->new = (const uint8_t *)PyBytes_AsString(new);
        one->old_size = (size_t)PyBytes_Size(old);
        one->new_size = (size_t)PyBytes_Size(new);
        if (one->old_size == 0) {
            PyErr_SetString(PyExc_ValueError, "the text to be replaced must not be empty");
            return -1;
        }
    }
    rules->count = one_pass(rules->replacements, count) ? count : 0;
    for (size_t i = 0; i < rules->count; i++)
        rules->classes[rules->replacements[i].old[0]] |= MAYBE;
    return 0;
}

static int has_dropped_prefix(const Rules *rules, const uint8_t *word, size_t length)
{
    return length >= rules->prefix_size && memcmp(word, rules->prefix, rules->prefix_size) == 0;
}

/* Fill `view` with the block on which the scan can start. */
static int rules_prepare(const Rules *rules, PyObject *block, Py_buffer *view)
{
    if (rules->count == (size_t)PyTuple_Size(rules->pairs))
        return PyObject_GetBuffer(block, view, PyBUF_SIMPLE);
    PyObject *text = PyBytes_FromObject(block);
    for (Py_ssize_t i = 0; text && i < PyTuple_Size(rules->pairs); i++) {
        PyObject *pair = PyTuple_GetItem(rules->pairs, i);
        PyObject *next = PyObject_CallMethod(
            text, "replace", "OO", PyTuple_GetItem(pair, 0), PyTuple_GetItem(pair, 1));
        Py_DECREF(text);
        text = next;
    }
    int status = text ? PyObject_GetBuffer(text, view, PyBUF_SIMPLE) : -1;
    Py_XDECREF(text);  /* the view keeps it */
    return status;
}

static const Replacement *find_replacement(const Rules *rules, const uint8_t *at, const uint8_t *end)
{
    for (size_t i = 0; i < rules->count; i++) {
        const Replacement *one = &rules->replacements[i];
        if (one->old_size <= (size_t)(end - at) && memcmp(at, one->old, one->old_size) == 0)
            return one;
    }
    return NULL;
}

/* Takes words that lie one after the other: the first starts at `word`, number i ends before base[ends[i]]. Some are
 * empty. Returns -1 if out of memory. */
typedef int (*TakeWords)(void *context, const uint8_t *word, const uint8_t *base, const uint32_t *ends, size_t count);

/* Add one byte to the words of the piece: always written, but kept, or ending a word, only as its class says. */
#define ADD(class_) (base[size] = (uint8_t)(class_), ends[count] = (uint32_t)size, \
                     size += ((class_) / KEEP) & 1, count += ((class_) / SPACE) & 1)

static int scan(const Rules *rules, const uint8_t *at, size_t block_size, TakeWords take, void *context)
{
    uint32_t ends[2 * PIECE + 1];  /* a piece, and the longest replacement at its end */
    size_t carried = 0;            /* letters of a word that began in an earlier piece */
    size_t capacity = 4 * PIECE;
    uint8_t *text = malloc(capacity + SHORT);
    const uint8_t *end = at + block_size;
    int status = text ? 0 : -1;
    while (status == 0 && at < end) {
        if (capacity - carried < 2 * PIECE) {
            uint8_t *more = capacity < SIZE_MAX / 4 ? realloc(text, 2 * capacity + SHORT) : NULL;
            if (!more) {
                status = -1;
                break;
            }
            text = more;
            capacity *= 2;
        }
        uint8_t *base = text + carried;
        size_t size = 0, count = 0;
        const uint8_t *stop = end - at > PIECE ? at + PIECE : end;
        while (at < stop) {
            uint32_t class_ = rules->classes[*at];
            if (class_ & MAYBE) {
                const Replacement *found = find_replacement(rules, at, end);
                if (found) {
                    for (size_t i = 0; i < found->new_size; i++)
                        ADD(rules->classes[found->new[i]]);
                    at += found->old_size;
                    ptrdiff_t room = (ptrdiff_t)PIECE - (ptrdiff_t)(size + count);
                    stop = end - at <= room ? end : at + (room > 0 ? room : 0);
                    continue;
                }
            }
            ADD(class_);
            at++;
        }
        if (at == end)
            ends[count++] = (uint32_t)size;
        status = take(context, text, base, ends, count);
        const uint8_t *rest = count ? base + ends[count - 1] : text;
        carried = (size_t)(base + size - rest);
        if (rest != text)
            memmove(text, rest, carried);
    }
    free(text);
    return status;
}

/* --- the two types --- */

typedef struct {
    PyObject_HEAD
    Rules rules;
    Table table;
    uint32_t unknown;  /* WordEncoder */
    int busy;          /* WordCounter: the table may change or is read; guarded by the GIL, which the stable ABI has */
} Native;

static Native *native_new(PyTypeObject *type, PyObject *pairs, PyObject *table, PyObject *delete, PyObject *drop_prefix)
{
    Native *self = (Native *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    self->table.mask = 1023;
    self->table.slots = calloc(self->table.mask + 1, sizeof(Slot));
    if (!self->table.slots)
        PyErr_NoMemory();
    else if (rules_init(&self->rules, pairs, table, delete, drop_prefix) == 0)
        return self;
    Py_DECREF((PyObject *)self);
    return NULL;
}

static void native_dealloc(PyObject *object)
{
    Native *self = (Native *)object;
    PyTypeObject *type = Py_TYPE(object);
    table_free(&self->table);
    free(self->rules.replacements);
    Py_XDECREF(self->rules.pairs);
    Py_XDECREF(self->rules.drop_prefix);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);  /* each instance of a type made at run time holds a reference to it */
}

/* --- WordCounter --- */

static PyObject *counter_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"replacements", "table", "delete", "drop_prefix", NULL};
    PyObject *pairs, *table, *delete, *drop_prefix;
    if (!PyArg_ParseTupleAndKeywords(
            args, keywords, "O!SSS", names, &PyTuple_Type, &pairs, &table, &delete, &drop_prefix))
        return NULL;
    return (PyObject *)native_new(type, pairs, table, delete, drop_prefix);
}

static int enter(Native *self)
{
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "this WordCounter is in use by another thread");
        return -1;
    }
    self->busy = 1;
    return 0;
}

static int count_words(void *context, const uint8_t *word, const uint8_t *base, const uint32_t *ends, size_t count)
{
    Table *table = context;
    for (size_t i = 0; i < count; word = base + ends[i++]) {
        size_t length = (size_t)(base + ends[i] - word);
        if (length == 0)
            continue;
        Slot *slot = table_put(table, word, length);
        if (!slot)
            return -1;
        slot->value++;
    }
    return 0;
}

static PyObject *counter_update(PyObject *object, PyObject *block)
{
    Native *self = (Native *)object;
    Py_buffer view;
    int status;
    if (rules_prepare(&self->rules, block, &view) < 0)
        return NULL;
    if (enter(self) < 0) {
        PyBuffer_Release(&view);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    status = scan(&self->rules, view.buf, (size_t)view.len, count_words, &self->table);
    Py_END_ALLOW_THREADS
    self->busy = 0;
    PyBuffer_Release(&view);
    return status < 0 ? PyErr_NoMemory() : Py_NewRef(Py_None);
}

static PyObject *counter_counts(PyObject *object, PyObject *Py_UNUSED(none))
{
    Native *self = (Native *)object;
    if (enter(self) < 0)
        return NULL;
    Slot **ordered = table_ordered(&self->table);
    PyObject *counts = ordered ? PyDict_New() : PyErr_NoMemory();
    for (size_t i = 0; counts && i < self->table.used; i++) {
        size_t length;
        const uint8_t *bytes = slot_word(ordered[i], &length);
        if (has_dropped_prefix(&self->rules, bytes, length))
            continue;
        PyObject *word = PyBytes_FromStringAndSize((const char *)bytes, (Py_ssize_t)length);
        PyObject *number = PyLong_FromUnsignedLongLong(ordered[i]->value);
        if (!word || !number || PyDict_SetItem(counts, word, number) < 0)
            Py_CLEAR(counts);
        Py_XDECREF(word);
        Py_XDECREF(number);
    }
    free(ordered);
    self->busy = 0;
    return counts;
}

static int merge_tables(Table *into, const Table *from)
{
    Slot **ordered = table_ordered(from);
    int status = ordered ? 0 : -1;
    /* From a table into itself nothing is new, so the slots stay where they are. */
    for (size_t i = 0, count = from->used; status == 0 && i < count; i++) {
        size_t length;
        const uint8_t *word = slot_word(ordered[i], &length);
        Slot *slot = table_put(into, word, length);
        if (slot)
            slot->value += ordered[i]->value;
        else
            status = -1;
    }
    free(ordered);
    return status;
}

static PyObject *counter_merge(PyObject *object, PyObject *other_object)
{
    Native *self = (Native *)object, *other = (Native *)other_object;
    int status;
    if (Py_TYPE(object) != Py_TYPE(other_object)) {
        PyErr_SetString(PyExc_TypeError, "merge takes a WordCounter");
        return NULL;
    }
    if (enter(self) < 0)
        return NULL;
    if (other != self && enter(other) < 0) {
        self->busy = 0;
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    status = merge_tables(&self->table, &other->table);
    Py_END_ALLOW_THREADS
    self->busy = other->busy = 0;
    return status < 0 ? PyErr_NoMemory() : Py_NewRef(Py_None);
}

/* --- WordEncoder --- */

static int encoder_fill(Native *self, PyObject *words)
{
    for (Py_ssize_t i = 0; i < PyTuple_Size(words); i++) {
        char *word;
        Py_ssize_t length;
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(words, i), &word, &length) < 0)
            return -1;
        if (length == 0)
            continue;  /* no block has it */
        uint8_t *padded = calloc((size_t)length + SHORT, 1);
        if (padded)
            memcpy(padded, word, (size_t)length);
        Slot *slot = padded ? table_put(&self->table, padded, (size_t)length) : NULL;
        free(padded);
        if (!slot) {
            PyErr_NoMemory();
            return -1;
        }
        slot->value = (uint64_t)i;
    }
    return 0;
}

static PyObject *encoder_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"replacements", "table", "delete", "drop_prefix", "words", "unknown", NULL};
    PyObject *pairs, *table, *delete, *drop_prefix, *words;
    Py_ssize_t unknown;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!SSSOn", names, &PyTuple_Type, &pairs, &table, &delete,
                                     &drop_prefix, &words, &unknown))
        return NULL;
    if (unknown < 0 || (uint64_t)unknown > UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "unknown must be from 0 to 2**32 - 1");
        return NULL;
    }
    words = PySequence_Tuple(words);
    Native *self = words ? native_new(type, pairs, table, delete, drop_prefix) : NULL;
    if (self) {
        self->unknown = (uint32_t)unknown;
        if (encoder_fill(self, words) < 0)
            Py_CLEAR(self);
    }
    Py_XDECREF(words);
    return (PyObject *)self;
}

typedef struct {
    const Native *encoder;
    size_t size, capacity;
    uint32_t *ids;
} Encoding;

static int encode_words(void *context, const uint8_t *word, const uint8_t *base, const uint32_t *ends, size_t count)
{
    Encoding *encoding = context;
    if (encoding->capacity - encoding->size < count) {
        size_t capacity = 2 * (encoding->capacity + count);
        uint32_t *more = capacity < SIZE_MAX / 8 ? realloc(encoding->ids, capacity * sizeof(uint32_t)) : NULL;
        if (!more)
            return -1;
        encoding->ids = more;
        encoding->capacity = capacity;
    }
    uint32_t *next = encoding->ids + encoding->size;
    for (size_t i = 0; i < count; word = base + ends[i++]) {
        size_t length = (size_t)(base + ends[i] - word);
        uint64_t key[2];
        if (length == 0)
            continue;
        const Slot *slot = table_find(&encoding->encoder->table, word, length, key);
        if (slot->length)  /* also if it starts with the prefix: a word of the vocabulary has an id */
            *next++ = (uint32_t)slot->value;
        else if (!has_dropped_prefix(&encoding->encoder->rules, word, length))
            *next++ = encoding->encoder->unknown;
    }
    encoding->size = (size_t)(next - encoding->ids);
    return 0;
}

static PyObject *encoder_encode(PyObject *object, PyObject *block)
{
    const Native *self = (const Native *)object;
    Py_buffer view;
    int status;
    if (rules_prepare(&self->rules, block, &view) < 0)
        return NULL;
    Encoding encoding = {.encoder = self};
    Py_BEGIN_ALLOW_THREADS
    status = scan(&self->rules, view.buf, (size_t)view.len, encode_words, &encoding);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&view);
    PyObject *ids = status < 0 ? PyErr_NoMemory() : PyBytes_FromStringAndSize(
        (const char *)encoding.ids, (Py_ssize_t)(encoding.size * sizeof(uint32_t)));
    free(encoding.ids);
    return ids;
}

/* --- the module --- */

static PyMethodDef counter_methods[] = {
    {"update", counter_update, METH_O, PyDoc_STR("Count the words of a block.")},
    {"counts", counter_counts, METH_NOARGS,
     PyDoc_STR("Return how often each word occurred, in the order in which they first came.")},
    {"merge", counter_merge, METH_O, PyDoc_STR("Add the counts of another WordCounter to these.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot counter_slots[] = {
    {Py_tp_doc, "Counts the words of blocks; one thread at a time may use it."},
    {Py_tp_new, counter_new},
    {Py_tp_dealloc, native_dealloc},
    {Py_tp_methods, counter_methods},
    {0, NULL},
};

static PyMethodDef encoder_methods[] = {
    {"encode", encoder_encode, METH_O, PyDoc_STR("Return the ids of the words of a block as native uint32.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot encoder_slots[] = {
    {Py_tp_doc, "Turns blocks into the ids of their words; any number of threads may use it at once."},
    {Py_tp_new, encoder_new},
    {Py_tp_dealloc, native_dealloc},
    {Py_tp_methods, encoder_methods},
    {0, NULL},
};

enum { TYPE_FLAGS = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE };
static PyType_Spec counter_spec = {
    "rnnpipe.text._native.WordCounter", sizeof(Native), 0, TYPE_FLAGS, counter_slots};
static PyType_Spec encoder_spec = {
    "rnnpipe.text._native.WordEncoder", sizeof(Native), 0, TYPE_FLAGS, encoder_slots};

static int set_seeds(void)
{
    PyObject *os = PyImport_ImportModule("os");
    PyObject *random = os ? PyObject_CallMethod(os, "urandom", "i", (int)sizeof seeds) : NULL;
    Py_XDECREF(os);
    char *bytes;
    Py_ssize_t size;
    int status = random ? PyBytes_AsStringAndSize(random, &bytes, &size) : -1;
    if (status == 0 && size == (Py_ssize_t)sizeof seeds)
        memcpy(seeds, bytes, sizeof seeds);
    Py_XDECREF(random);
    seeds[0] |= 1;
    seeds[1] |= 1;
    return status;
}

static int add_type(PyObject *module, PyType_Spec *spec)
{
    PyObject *type = PyType_FromSpec(spec);
    int status = type ? PyModule_AddType(module, (PyTypeObject *)type) : -1;
    Py_XDECREF(type);
    return status;
}

static int module_exec(PyObject *module)
{
    if (!seeds[0] && set_seeds() < 0)  /* once in a process: tables that exist depend on them */
        return -1;
    for (size_t length = 0; length <= SHORT; length++)
        memset(masks[length], 0xff, length);
    return add_type(module, &counter_spec) < 0 || add_type(module, &encoder_spec) < 0 ? -1 : 0;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT, "_native", "Counting and encoding words by byte table, in C.", 0, NULL, module_slots,
    NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&module_definition);
}
