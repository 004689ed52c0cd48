/* Sorted runs of counts, by which counting goes on beyond memory: their records, and merging them.
 *
 * A record is the length of a word (uint32), its count (uint64) and its bytes, in the machine's own byte order: a run
 * lives no longer than the process that wrote it. rnnpipe/text/runs.py does the same in Python.
 */
#ifndef RNNPIPE_RUNS_H
#define RNNPIPE_RUNS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "table.h"

enum { HEAD = 12, RUN_BUFFER = 1 << 18 };

/* Write the head of a record. */
static void write_head(uint8_t *to, size_t length, uint64_t count)
{
    uint32_t size = (uint32_t)length;
    memcpy(to, &size, 4);
    memcpy(to + 4, &count, 8);
}

typedef struct {
    PyObject *read;      /* as of a file */
    uint8_t *buffer;
    size_t room, at, size;
    const uint8_t *word; /* of the record at `at` */
    size_t length;
    uint64_t count;
} Run;

typedef struct {
    PyObject_HEAD
    Run *runs;
    size_t count;
    size_t *heap;        /* numbers of runs, the one with the least word first */
    size_t heap_size;
} RunMerger;

/* Fill the buffer of a run to at least `needed` bytes; 1: done, 0: the run ends before, -1: an exception is set. */
static int run_fill(Run *run, size_t needed)
{
    if (run->size - run->at >= needed)
        return 1;
    memmove(run->buffer, run->buffer + run->at, run->size - run->at);
    run->size -= run->at;
    run->at = 0;
    if (run->room < needed) {
        uint8_t *more = realloc(run->buffer, needed + RUN_BUFFER);
        if (!more) {
            PyErr_NoMemory();
            return -1;
        }
        run->buffer = more;
        run->room = needed + RUN_BUFFER;
    }
    while (run->size < needed) {
        PyObject *bytes = PyObject_CallFunction(run->read, "n", (Py_ssize_t)(run->room - run->size));
        char *data;
        Py_ssize_t size;
        if (!bytes || PyBytes_AsStringAndSize(bytes, &data, &size) < 0 || (size_t)size > run->room - run->size) {
            if (bytes && !PyErr_Occurred())
                PyErr_SetString(PyExc_ValueError, "read gave more than it was asked for");
            Py_XDECREF(bytes);
            return -1;
        }
        memcpy(run->buffer + run->size, data, (size_t)size);
        run->size += (size_t)size;
        Py_DECREF(bytes);
        if (size == 0)
            return 0;
    }
    return 1;
}

/* Go on to the record at `at`; as run_fill. */
static int run_load(Run *run)
{
    int status = run_fill(run, HEAD);
    if (status == 0 && run->size > run->at)
        status = -2;
    if (status == 1) {
        uint32_t length;
        memcpy(&length, run->buffer + run->at, 4);
        status = run_fill(run, HEAD + (size_t)length);
        if (status == 0)
            status = -2;
        memcpy(&run->count, run->buffer + run->at + 4, 8);
        run->word = run->buffer + run->at + HEAD;
        run->length = length;
    }
    if (status == -2) {
        PyErr_SetString(PyExc_ValueError, "a run of counts ends within a record");
        return -1;
    }
    return status;
}

static int run_before(const RunMerger *merger, size_t one, size_t other)
{
    const Run *a = &merger->runs[one], *b = &merger->runs[other];
    return compare_words(a->word, a->length, b->word, b->length) < 0;
}

static void heap_sink(RunMerger *merger, size_t at)
{
    size_t *heap = merger->heap, moved = heap[at];
    for (size_t child; (child = 2 * at + 1) < merger->heap_size; at = child) {
        if (child + 1 < merger->heap_size && run_before(merger, heap[child + 1], heap[child]))
            child++;
        if (!run_before(merger, heap[child], moved))
            break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

/* Move the first run of the heap to its next record. */
static int merger_advance(RunMerger *merger)
{
    Run *run = &merger->runs[merger->heap[0]];
    run->at += HEAD + run->length;
    int status = run_load(run);
    if (status < 0)
        return -1;
    if (status == 0)
        merger->heap[0] = merger->heap[--merger->heap_size];
    if (merger->heap_size)
        heap_sink(merger, 0);
    return 0;
}

static PyObject *merger_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"reads", NULL};
    PyObject *reads;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!", names, &PyTuple_Type, &reads))
        return NULL;
    RunMerger *self = (RunMerger *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    size_t count = (size_t)PyTuple_Size(reads);
    self->runs = calloc(count + 1, sizeof(Run));
    self->heap = calloc(count + 1, sizeof(size_t));
    if (!self->runs || !self->heap) {
        PyErr_NoMemory();
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    for (; self->count < count; self->count++) {
        Run *run = &self->runs[self->count];
        run->read = Py_NewRef(PyTuple_GetItem(reads, (Py_ssize_t)self->count));
        int status = run_load(run);
        if (status < 0) {
            self->count++;
            Py_DECREF((PyObject *)self);
            return NULL;
        }
        if (status == 1)
            self->heap[self->heap_size++] = self->count;
    }
    for (size_t i = self->heap_size / 2; i-- > 0;)
        heap_sink(self, i);
    return (PyObject *)self;
}

static void merger_dealloc(PyObject *object)
{
    RunMerger *self = (RunMerger *)object;
    PyTypeObject *type = Py_TYPE(object);
    for (size_t i = 0; self->runs && i < self->count; i++) {
        Py_XDECREF(self->runs[i].read);
        free(self->runs[i].buffer);
    }
    free(self->runs);
    free(self->heap);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* Append bytes to a buffer that grows. */
typedef struct {
    uint8_t *bytes;
    size_t size, room;
} Buffer;

static int buffer_add(Buffer *buffer, const void *bytes, size_t size)
{
    if (buffer->room - buffer->size < size) {
        size_t room = 2 * (buffer->size + size);
        uint8_t *more = realloc(buffer->bytes, room);
        if (!more) {
            PyErr_NoMemory();
            return -1;
        }
        buffer->bytes = more;
        buffer->room = room;
    }
    if (size)
        memcpy(buffer->bytes + buffer->size, bytes, size);
    buffer->size += size;
    return 0;
}

static PyObject *merger_next(PyObject *object, PyObject *argument)
{
    RunMerger *self = (RunMerger *)object;
    size_t limit = PyLong_AsSize_t(argument);
    if (PyErr_Occurred())
        return NULL;
    Buffer words = {0}, counts = {0};
    int status = 0;
    while (status == 0 && self->heap_size && words.size < limit) {
        Run *first = &self->runs[self->heap[0]];
        size_t start = words.size, length = first->length;
        uint64_t count = first->count;
        if ((status = buffer_add(&words, first->word, length)) < 0 || (status = merger_advance(self)) < 0)
            break;
        while (status == 0 && self->heap_size) {
            Run *next = &self->runs[self->heap[0]];
            if (next->length != length || memcmp(next->word, words.bytes + start, length) != 0)
                break;
            count += next->count;
            status = merger_advance(self);
        }
        if (status == 0 && (status = buffer_add(&words, "\xff", 1)) == 0)
            status = buffer_add(&counts, &count, sizeof count);
    }
    PyObject *result = NULL;
    if (status == 0)
        result = Py_BuildValue("(y#y#)", words.bytes ? (char *)words.bytes : "", (Py_ssize_t)words.size,
                               counts.bytes ? (char *)counts.bytes : "", (Py_ssize_t)counts.size);
    free(words.bytes);
    free(counts.bytes);
    return result;
}

#endif
