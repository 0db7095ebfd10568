#include "reader.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static uint64_t digits(const char *text, size_t count) {
    uint64_t value = 0;
    for (size_t at = 0; at < count; at++) value = value * 10 + (uint64_t)(text[at] - '0');
    return value;
}

static void data_line(struct reader *reader, const char *line, size_t kept, size_t length) {
    if (kept > LINE_KEPT) kept = LINE_KEPT;
    for (size_t at = 5; at + PAYLOAD_START_LENGTH <= kept; at++) {
        const char *start = line + at;
        if ((*start != MARK_EVENT && *start != MARK_PROBE) || start[11] != ':' || start[32] != ';') continue;
        reader->event = (struct event){*start, (uint32_t)digits(start + 1, 10), digits(start + 12, 20), length - at};
        reader->has_event = true;
        return;
    }
}

/* A line of the body without its end, of which `kept` bytes are at hand. */
static void body_line(struct reader *reader, const char *line, size_t kept, size_t length, arrived *arrived, void *whose) {
    if (length == 0) {
        if (reader->has_event) arrived(whose, &reader->event);
        reader->has_event = false;
    } else if (kept >= 5 && memcmp(line, "data:", 5) == 0) {
        data_line(reader, line, kept, length);
    }
}

static void head_line(struct reader *reader, const char *line, size_t length) {
    if (length == 0) {
        reader->phase = reader->chunked ? CHUNK_SIZE : PLAIN;
        reader->left = 0;
    } else if (reader->status == 0) {
        reader->status = length >= 12 ? (uint16_t)strtoul(line + 9, NULL, 10) : 999;
    } else if (length >= 18 && strncasecmp(line, "transfer-encoding:", 18) == 0) {
        reader->chunked = strcasestr(line, "chunked") != NULL;
    }
}

static void keep(struct reader *reader, const char *bytes, size_t count) {
    if (count == 0) return;
    if (reader->length < LINE_KEPT - 1) {
        size_t room = LINE_KEPT - 1 - reader->length;
        memcpy(reader->line + reader->length, bytes, count < room ? count : room);
    }
    reader->length += count;
    reader->last = bytes[count - 1];
}

static size_t kept(const struct reader *reader) {
    return reader->length < LINE_KEPT - 1 ? reader->length : LINE_KEPT - 1;
}

static void body(struct reader *reader, const char *bytes, const char *end, arrived *arrived, void *whose) {
    for (const char *stop; (stop = memchr(bytes, '\n', (size_t)(end - bytes))); bytes = stop + 1) {
        size_t length;
        if (reader->length == 0) { /* the whole line is at hand: nothing is copied */
            length = (size_t)(stop - bytes);
            length -= length && stop[-1] == '\r';
            body_line(reader, bytes, length, length, arrived, whose);
            continue;
        }
        keep(reader, bytes, (size_t)(stop - bytes));
        length = reader->length - (reader->last == '\r');
        body_line(reader, reader->line, kept(reader) < length ? kept(reader) : length, length, arrived, whose);
        reader->length = 0;
    }
    keep(reader, bytes, (size_t)(end - bytes));
}

static int hexadecimal(char digit) {
    if (digit >= '0' && digit <= '9') return digit - '0';
    digit |= 0x20;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

void reader_feed(struct reader *reader, const char *bytes, size_t count, arrived *arrived, void *whose) {
    const char *end = bytes + count;
    while (bytes < end) {
        const char *stop;
        size_t part;
        switch (reader->phase) {
        case HEAD:
            stop = memchr(bytes, '\n', (size_t)(end - bytes));
            keep(reader, bytes, (size_t)((stop ? stop : end) - bytes));
            if (!stop) return;
            reader->length -= reader->length && reader->last == '\r';
            reader->line[kept(reader)] = 0;
            part = reader->length;
            reader->length = 0;
            head_line(reader, reader->line, part);
            bytes = stop + 1;
            break;
        case CHUNK_SIZE:
            for (; bytes < end && hexadecimal(*bytes) >= 0; bytes++)
                reader->left = reader->left * 16 + (size_t)hexadecimal(*bytes);
            if (bytes < end) reader->phase = CHUNK_LINE;
            break;
        case CHUNK_LINE: /* the rest of the line that has the size: an extension, or nothing */
            stop = memchr(bytes, '\n', (size_t)(end - bytes));
            if (!stop) return;
            bytes = stop + 1;
            reader->phase = reader->left ? CHUNK_DATA : ENDED;
            break;
        case CHUNK_DATA:
            part = reader->left < (size_t)(end - bytes) ? reader->left : (size_t)(end - bytes);
            body(reader, bytes, bytes + part, arrived, whose);
            bytes += part;
            reader->left -= part;
            if (!reader->left) reader->phase = CHUNK_END;
            break;
        case CHUNK_END:
            if (*bytes++ == '\n') reader->phase = CHUNK_SIZE;
            break;
        case PLAIN:
            body(reader, bytes, end, arrived, whose);
            return;
        case ENDED:
            return;
        }
    }
}
