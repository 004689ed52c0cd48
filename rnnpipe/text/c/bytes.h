/* Words by byte table: one pass over the bytes of a block.
 *
 * A block is scanned in short pieces. Each byte goes through a table of 256 classes that does mapping, deleting and
 * splitting at once and without branches: the letters of the words are packed one after the other, and the places
 * where words end are listed.
 */
#ifndef RNNPIPE_BYTES_H
#define RNNPIPE_BYTES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "table.h"

enum { PIECE = 4096 };  /* bytes scanned at a time: the letters and the ends stay in the first-level cache */

/* How a scan can fail; RAISED: an exception is set already. */
enum { NO_MEMORY = -1, RAISED = -2, NOT_UTF8 = -3 };

/* Takes words that lie one after the other: the first starts at `word`, number i ends before base[ends[i]]. Some are
 * empty. Returns 0 or NO_MEMORY. */
typedef int (*TakeWords)(void *context, const uint8_t *word, const uint8_t *base, const uint32_t *ends, size_t count);

typedef struct {
    const uint8_t *old, *new;
    size_t old_size, new_size;
} Replacement;

typedef struct {
    uint16_t classes[256];      /* the mapped byte, and the flags below */
    Replacement *replacements;
    size_t count;               /* how many of them the scan does: all, or if one pass cannot do them none */
    PyObject *pairs;            /* the replacements as given: a tuple of tuples of two bytes */
} ByteRules;

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

static int byte_rules_init(ByteRules *rules, PyObject *pairs, PyObject *table, PyObject *delete)
{
    rules->pairs = Py_NewRef(pairs);
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

/* Fill `view` with the block on which the scan can start. */
static int byte_rules_prepare(const ByteRules *rules, PyObject *block, Py_buffer *view)
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

static const Replacement *find_replacement(const ByteRules *rules, const uint8_t *at, const uint8_t *end)
{
    for (size_t i = 0; i < rules->count; i++) {
        const Replacement *one = &rules->replacements[i];
        if (one->old_size <= (size_t)(end - at) && memcmp(at, one->old, one->old_size) == 0)
            return one;
    }
    return NULL;
}

/* Add one byte to the words of the piece: always written, but kept, or ending a word, only as its class says. */
#define ADD(class_) (base[size] = (uint8_t)(class_), ends[count] = (uint32_t)size, \
                     size += ((class_) / KEEP) & 1, count += ((class_) / SPACE) & 1)

static int scan_bytes(const ByteRules *rules, const uint8_t *at, size_t block_size, TakeWords take, void *context)
{
    uint32_t ends[2 * PIECE + 1];  /* a piece, and the longest replacement at its end */
    size_t carried = 0;            /* letters of a word that began in an earlier piece */
    size_t capacity = 4 * PIECE;
    uint8_t *text = malloc(capacity + SHORT);
    const uint8_t *end = at + block_size;
    int status = text ? 0 : NO_MEMORY;
    while (status == 0 && at < end) {
        if (capacity - carried < 2 * PIECE) {
            uint8_t *more = capacity < SIZE_MAX / 4 ? realloc(text, 2 * capacity + SHORT) : NULL;
            if (!more) {
                status = NO_MEMORY;
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

#endif
