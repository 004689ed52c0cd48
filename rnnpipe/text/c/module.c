/* Counting and encoding the words of UTF-8 blocks, in C.
 *
 * This module is optional: without it the package does the same in Python, with the same results, only slower. It uses
 * the stable ABI alone, so one build serves every Python from 3.11 on.
 *
 * The rules of a text find its words, in one of two ways: bytes.h for rules that leave ASCII alone, points.h for every
 * script. Then the words are looked up in a hash table (table.h). All this runs without the GIL. runs.h merges the
 * sorted counts that a counter gives up when it has become too large.
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

#include "bytes.h"
#include "points.h"
#include "runs.h"
#include "table.h"
#include "utf8.h"

enum { INTERFACE = 2 };  /* rnnpipe/text/native.py leaves a build with another one alone */

/* --- the rules of a text --- */

typedef struct {
    ByteRules bytes;
    PointRules points;     /* in use if it has a function */
    PyObject *drop_prefix; /* NULL: no word is dropped */
    const uint8_t *prefix;
    size_t prefix_size;
} Rules;

/* Read the rules from a tuple: (replacements, table, delete, drop_prefix), or (load_page, resolve). */
static int rules_init(Rules *rules, PyObject *from)
{
    PyObject *pairs, *table, *delete, *drop_prefix;
    if (PyTuple_Size(from) == 2) {
        if (!PyCallable_Check(PyTuple_GetItem(from, 0)) || !PyCallable_Check(PyTuple_GetItem(from, 1))) {
            PyErr_SetString(PyExc_TypeError, "load_page and resolve must be functions");
            return -1;
        }
        rules->points.load_page = Py_NewRef(PyTuple_GetItem(from, 0));
        rules->points.resolve = Py_NewRef(PyTuple_GetItem(from, 1));
        return 0;
    }
    if (!PyArg_ParseTuple(from, "O!SSS", &PyTuple_Type, &pairs, &table, &delete, &drop_prefix))
        return -1;
    rules->drop_prefix = Py_NewRef(drop_prefix);
    rules->prefix = (const uint8_t *)PyBytes_AsString(drop_prefix);
    rules->prefix_size = (size_t)PyBytes_Size(drop_prefix);
    return byte_rules_init(&rules->bytes, pairs, table, delete);
}

static void rules_free(Rules *rules)
{
    point_rules_free(&rules->points);
    free(rules->bytes.replacements);
    Py_XDECREF(rules->bytes.pairs);
    Py_XDECREF(rules->drop_prefix);
}

static int has_dropped_prefix(const Rules *rules, const uint8_t *word, size_t length)
{
    return rules->drop_prefix && length >= rules->prefix_size && memcmp(word, rules->prefix, rules->prefix_size) == 0;
}

/* Find the words of a block without the interpreter's lock; return -1 with an exception set. */
static int find_words(Rules *rules, PyObject *block, TakeWords take, void *context)
{
    Py_buffer view;
    int by_point = rules->points.load_page != NULL;
    if ((by_point ? PyObject_GetBuffer(block, &view, PyBUF_SIMPLE)
                  : byte_rules_prepare(&rules->bytes, block, &view)) < 0)
        return -1;
    PyThreadState *thread = PyEval_SaveThread();
    int status = by_point ? scan_points(&rules->points, view.buf, (size_t)view.len, take, context, &thread)
                          : scan_bytes(&rules->bytes, view.buf, (size_t)view.len, take, context);
    PyEval_RestoreThread(thread);
    PyBuffer_Release(&view);
    if (status == NO_MEMORY)
        PyErr_NoMemory();
    if (status == NOT_UTF8)
        PyErr_SetString(PyExc_ValueError, "the block is not UTF-8");
    return status < 0 ? -1 : 0;
}

/* --- what both types are made of --- */

typedef struct {
    PyObject_HEAD
    Rules rules;
    Table table;
    uint32_t unknown;   /* WordEncoder */
    int busy;           /* WordCounter: the table may change or is read; guarded by the GIL, which the stable ABI has */
    int sorted;         /* WordCounter: it is being drained */
    size_t drained;     /* slots that have been read */
} Native;

static Native *native_new(PyTypeObject *type, PyObject *rules)
{
    Native *self = (Native *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    self->table.mask = 1023;
    self->table.slots = calloc(self->table.mask + 1, sizeof(Slot));
    if (!self->table.slots)
        PyErr_NoMemory();
    else if (rules_init(&self->rules, rules) == 0)
        return self;
    Py_DECREF((PyObject *)self);
    return NULL;
}

static void native_dealloc(PyObject *object)
{
    Native *self = (Native *)object;
    PyTypeObject *type = Py_TYPE(object);
    table_free(&self->table);
    rules_free(&self->rules);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);  /* each instance of a type made at run time holds a reference to it */
}

enum { AT_ONCE = 16 };

/* Make the next words ready to be looked up, AT_ONCE at most, and move on; return how many they are. */
static inline size_t ready_words(const Table *table, const uint8_t **word, const uint8_t *base, const uint32_t *ends,
                                 size_t count, size_t *at, Lookup ready[AT_ONCE])
{
    size_t found = 0;
    for (; *at < count && found < AT_ONCE; *word = base + ends[(*at)++]) {
        size_t length = (size_t)(base + ends[*at] - *word);
        if (length)
            table_ready(table, *word, length, &ready[found++]);
    }
    return found;
}

/* --- WordCounter --- */

static PyObject *counter_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"rules", NULL};
    PyObject *rules;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!", names, &PyTuple_Type, &rules))
        return NULL;
    return (PyObject *)native_new(type, rules);
}

static int enter(Native *self)
{
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "this WordCounter is in use by another thread");
        return -1;
    }
    if (self->sorted) {
        PyErr_SetString(PyExc_RuntimeError, "this WordCounter is being drained; drain it to its end first");
        return -1;
    }
    self->busy = 1;
    return 0;
}

static int count_words(void *context, const uint8_t *word, const uint8_t *base, const uint32_t *ends, size_t count)
{
    Table *table = context;
    Lookup ready[AT_ONCE];
    for (size_t i = 0; i < count;) {
        size_t found = ready_words(table, &word, base, ends, count, &i, ready);
        for (size_t k = 0; k < found; k++) {
            Slot *slot = table_put(table, &ready[k]);
            if (!slot)
                return NO_MEMORY;
            slot->value++;
        }
    }
    return 0;
}

static PyObject *counter_update(PyObject *object, PyObject *block)
{
    Native *self = (Native *)object;
    if (enter(self) < 0)
        return NULL;
    int status = find_words(&self->rules, block, count_words, &self->table);
    self->busy = 0;
    return status < 0 ? NULL : Py_NewRef(Py_None);
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
        Lookup lookup;
        table_ready(into, word, length, &lookup);
        Slot *slot = table_put(into, &lookup);
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

/* Whether counting the words of a block of so many bytes could make the table grow to more than `limit` bytes. */
static PyObject *counter_full(PyObject *object, PyObject *args)
{
    const Table *table = &((Native *)object)->table;
    Py_ssize_t block, limit;
    if (!PyArg_ParseTuple(args, "nn", &block, &limit))
        return NULL;
    size_t slots = (table->mask + 1) * sizeof(Slot), room = table_room(table);
    size_t more = table->used + (size_t)block / 2 + 1;
    size_t bytes = slots + table->long_bytes + (size_t)block;
    for (; more > room; room *= 2, slots *= 2)
        bytes = 3 * slots + table->long_bytes + (size_t)block;  /* the old slots and twice as many */
    return PyBool_FromLong(table->used && bytes > (size_t)limit);
}

static PyObject *counter_types(PyObject *object, PyObject *Py_UNUSED(none))
{
    return PyLong_FromSize_t(((Native *)object)->table.used);
}

static PyObject *counter_drain(PyObject *object, PyObject *argument)
{
    Native *self = (Native *)object;
    Table *table = &self->table;
    size_t limit = PyLong_AsSize_t(argument);
    if (PyErr_Occurred())
        return NULL;
    if (!self->sorted) {
        if (enter(self) < 0)
            return NULL;
        Py_BEGIN_ALLOW_THREADS
        table_sort(table);
        Py_END_ALLOW_THREADS
        self->busy = 0;
        self->sorted = 1;
        self->drained = 0;
    }
    Buffer records = {0};
    for (; self->drained < table->used && records.size < limit; self->drained++) {
        const Slot *slot = &table->slots[self->drained];
        size_t length;
        const uint8_t *word = slot_word(slot, &length);
        uint8_t head[HEAD];
        if (has_dropped_prefix(&self->rules, word, length))
            continue;
        write_head(head, length, slot->value);
        if (buffer_add(&records, head, HEAD) < 0 || buffer_add(&records, word, length) < 0) {
            free(records.bytes);
            return NULL;
        }
    }
    PyObject *result = PyBytes_FromStringAndSize((const char *)records.bytes, (Py_ssize_t)records.size);
    free(records.bytes);
    if (result && records.size == 0) {
        table_clear(table);
        self->sorted = 0;
    }
    return result;
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
        Lookup lookup;
        if (padded)
            table_ready(&self->table, padded, (size_t)length, &lookup);
        Slot *slot = padded ? table_put(&self->table, &lookup) : NULL;
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
    static char *names[] = {"rules", "words", "unknown", NULL};
    PyObject *rules, *words;
    Py_ssize_t unknown;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!On", names, &PyTuple_Type, &rules, &words, &unknown))
        return NULL;
    if (unknown < 0 || (uint64_t)unknown > UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "unknown must be from 0 to 2**32 - 1");
        return NULL;
    }
    words = PySequence_Tuple(words);
    Native *self = words ? native_new(type, rules) : NULL;
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
    const Native *encoder = encoding->encoder;
    Lookup ready[AT_ONCE];
    for (size_t i = 0; i < count;) {
        size_t found = ready_words(&encoder->table, &word, base, ends, count, &i, ready);
        for (size_t k = 0; k < found; k++) {
            const Slot *slot = table_find(&encoder->table, &ready[k]);
            if (slot->length)  /* also if it starts with the prefix: a word of the vocabulary has an id */
                *next++ = (uint32_t)slot->value;
            else if (!has_dropped_prefix(&encoder->rules, ready[k].word, ready[k].length))
                *next++ = encoder->unknown;
        }
    }
    encoding->size = (size_t)(next - encoding->ids);
    return 0;
}

static PyObject *encoder_encode(PyObject *object, PyObject *block)
{
    Native *self = (Native *)object;
    Encoding encoding = {.encoder = self};
    int status = find_words(&self->rules, block, encode_words, &encoding);
    PyObject *ids = status < 0 ? NULL : PyBytes_FromStringAndSize(
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
    {"full", counter_full, METH_VARARGS,
     PyDoc_STR("Say whether counting a block of so many bytes could take more than so many bytes of memory.")},
    {"types", counter_types, METH_NOARGS, PyDoc_STR("Return how many words there are, dropped ones too.")},
    {"drain", counter_drain, METH_O,
     PyDoc_STR("Return about so many bytes of records, by word; at the end nothing, and the counter is empty.")},
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

static PyMethodDef merger_methods[] = {
    {"next", merger_next, METH_O,
     PyDoc_STR("Return the next words, about so many bytes, each with 0xff behind it, and their counts as uint64.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot merger_slots[] = {
    {Py_tp_doc, "Merges sorted runs, given by the functions that read them; the counts of a word are added up."},
    {Py_tp_new, merger_new},
    {Py_tp_dealloc, merger_dealloc},
    {Py_tp_methods, merger_methods},
    {0, NULL},
};

static PyType_Spec merger_spec = {
    "rnnpipe.text._native.RunMerger", sizeof(RunMerger), 0, TYPE_FLAGS, merger_slots};

static PyObject *characters(PyObject *Py_UNUSED(module), PyObject *block)
{
    Py_buffer view;
    if (PyObject_GetBuffer(block, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    int64_t count;
    Py_BEGIN_ALLOW_THREADS
    count = count_characters(view.buf, (size_t)view.len);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&view);
    return PyLong_FromLongLong(count);
}

static PyMethodDef module_methods[] = {
    {"characters", characters, METH_O,
     PyDoc_STR("Return the characters of a block, CR LF being one; -1 if it is not UTF-8 or has a NUL.")},
    {NULL, NULL, 0, NULL},
};

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
    if (PyModule_AddIntConstant(module, "INTERFACE", INTERFACE) < 0)
        return -1;
    return add_type(module, &counter_spec) < 0 || add_type(module, &encoder_spec) < 0 ||
                   add_type(module, &merger_spec) < 0 ? -1 : 0;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT, "_native", "Counting and encoding words, in C.", 0, module_methods, module_slots,
    NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&module_definition);
}
