/* One answer of a server as it comes in: the head of HTTP/1.1, a body that is chunked or not, the lines of an event stream.
 *
 * It has no I/O and allocates nothing. It knows only what the load generator must know: which of our events have arrived.
 * An event of ours has the mark of its kind in one `data` line, within the first bytes of it; a server may wrap the payload
 * into JSON, add other fields and other events, and cut its chunks wherever it likes.
 */
#ifndef READER_H
#define READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINE_KEPT 160 /* of a line that came in pieces; our mark, number and time stand within it */

enum phase { HEAD, CHUNK_SIZE, CHUNK_LINE, CHUNK_DATA, CHUNK_END, PLAIN, ENDED };

/* What our publisher puts at the beginning of each payload: mark, sequence number, monotonic time in ns. */
#define PAYLOAD_START "%c%010u:%020llu;"
#define PAYLOAD_START_LENGTH 33
#define MARK_PROBE '!' /* tells that a stream is subscribed; not measured */
#define MARK_EVENT '#'

struct event {
    char mark;
    uint32_t number;
    uint64_t sent_ns;
    size_t length; /* of the rest of the line from the mark on: the payload and what is wrapped around it */
};

struct reader {
    enum phase phase;
    uint16_t status; /* 0: not yet known */
    bool chunked;
    bool has_event; /* the block so far has an event of ours */
    char last;      /* byte of the line so far, which may not have been kept */
    size_t left;    /* bytes of the present chunk */
    size_t length;  /* of the line so far; more than is kept of it, perhaps */
    struct event event;
    char line[LINE_KEPT];
};

/* Called at the blank line that ends the block of an event of ours. */
typedef void arrived(void *whose, const struct event *event);

void reader_feed(struct reader *reader, const char *bytes, size_t count, arrived *arrived, void *whose);

#endif
