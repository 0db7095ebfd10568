/* The load generator: N streams of one server, one publisher, and an account of every delivery.
 *
 * It first opens a tenth of the streams and looks at the server's memory, so that what is there for all streams is no part
 * of what one costs. Then it opens the others, and publishes probes until each stream has had one: only then all are known
 * to be subscribed, whatever a server does after it has answered, and measuring begins.
 *
 * Each payload begins with a number and a time of the monotonic clock. So a delivery tells by itself which event it is and
 * how long it took, and one that is missing, doubled or out of order is seen for each stream. One thread reads all streams;
 * another publishes, so that neither waits for the other. The result is one line of JSON.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "options.h"
#include "processes.h"
#include "publisher.h"
#include "reader.h"
#include "tally.h"

#define SOURCES 16          /* addresses to connect from: each has 28,000 ports, and ports of the last run may still rest */
#define BUFFER (512 * 1024) /* of one read */
#define READY 1024          /* streams that are handled between two looks at the clock */
#define PROBE_AGAIN_S 1.0   /* without a delivery, while some streams have not had one */
#define SETTLED_S 0.3       /* without a delivery: the probes have all arrived */

enum state { UNUSED, CONNECTING, ASKED, OPEN, REFUSED, CLOSED };

struct stream {
    struct reader reader;
    struct had had;
    int fd;
    enum state state;
    double asked_at;
};

static struct options options;
static struct stream *streams;
static struct tally tally;
static int selector, in_flight, timed_out, refused_status;
static uint64_t now_ns; /* when the bytes that are being read were taken */

static struct publisher publisher;
static atomic_int answered; /* events that the server took */
static atomic_bool published, stop;
static double publish_began, publish_ended, publisher_cpu;

static uint64_t monotonic_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static double seconds(void) {
    return (double)monotonic_ns() / 1e9;
}

static double thread_cpu(void) {
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void fail(const char *what) {
    fputs("load: ", stderr);
    perror(what);
    exit(1);
}

static double last_delivery(void) {
    return (double)tally.last_ns / 1e9;
}

static void arrive(void *whose, const struct event *event) {
    tally_count(&tally, &((struct stream *)whose)->had, event, now_ns);
}

static void leave(struct stream *stream, enum state state) {
    in_flight -= stream->state == CONNECTING || (stream->state == ASKED && !options.late);
    stream->state = state;
    close(stream->fd);
}

static void ask(struct stream *stream) {
    char request[1024];
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(stream->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    int length = snprintf(
        request, sizeof request,
        "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n\r\n", options.path
    );
    if (error || send(stream->fd, request, (size_t)length, MSG_NOSIGNAL) != length) {
        leave(stream, CLOSED);
        return;
    }
    struct epoll_event wish = {.events = EPOLLIN | EPOLLET, .data.ptr = stream};
    epoll_ctl(selector, EPOLL_CTL_MOD, stream->fd, &wish);
    in_flight -= options.late;
    stream->state = ASKED;
}

static void heed_head(struct stream *stream) {
    if (stream->reader.status != 200) {
        refused_status = stream->reader.status;
        leave(stream, REFUSED);
    } else if (stream->reader.phase != HEAD) {
        in_flight -= !options.late;
        stream->state = OPEN;
    }
}

/* Read all that there is: the selector tells only once of what has come. */
static void take(struct stream *stream) {
    static char buffer[BUFFER];
    ssize_t count = BUFFER;
    while (count == BUFFER && (stream->state == ASKED || stream->state == OPEN)) {
        count = recv(stream->fd, buffer, BUFFER, 0);
        if (count < 0 && errno == EAGAIN) return;
        if (count <= 0) {
            leave(stream, CLOSED);
            return;
        }
        now_ns = monotonic_ns();
        reader_feed(&stream->reader, buffer, (size_t)count, arrive, stream);
        if (stream->state == ASKED && stream->reader.status) heed_head(stream);
        if (stream->state == OPEN && stream->reader.phase == ENDED) leave(stream, CLOSED);
    }
}

static void turn(int within_ms) {
    static struct epoll_event ready[READY];
    int count = epoll_wait(selector, ready, READY, within_ms);
    for (int at = 0; at < count; at++) {
        struct stream *stream = ready[at].data.ptr;
        if (stream->state == CONNECTING)
            ask(stream);
        else
            take(stream);
    }
}

static void begin(struct stream *stream, int number) {
    struct sockaddr_in source = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + (uint32_t)number % SOURCES)};
    struct linger reset = {1, 0}; /* no port rests after the run */
    struct epoll_event wish = {.events = EPOLLOUT, .data.ptr = stream};
    int yes = 1;
    stream->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (stream->fd < 0) fail("socket");
    setsockopt(stream->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    setsockopt(stream->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (bind(stream->fd, (struct sockaddr *)&source, sizeof source) < 0) fail("bind");
    if (connect(stream->fd, (struct sockaddr *)&options.server, sizeof options.server) < 0 && errno != EINPROGRESS)
        fail("connect");
    stream->state = CONNECTING;
    stream->asked_at = seconds();
    in_flight++;
    epoll_ctl(selector, EPOLL_CTL_ADD, stream->fd, &wish);
}

/* Open the streams up to this number, and wait until each has an answer or has waited for one too long. */
static void open_streams(int from, int to) {
    double looked = seconds();
    for (int next = from; next < to || in_flight;) {
        while (next < to && in_flight < options.window) {
            begin(&streams[next], next);
            next++;
        }
        turn(20);
        if (seconds() - looked < 0.2) continue;
        looked = seconds();
        for (int at = from; at < next; at++) {
            struct stream *stream = &streams[at];
            if (stream->state != CONNECTING && (stream->state != ASKED || options.late)) continue;
            if (looked - stream->asked_at < options.handshake_s) continue;
            timed_out++;
            leave(stream, CLOSED);
        }
    }
}

static int count_streams(int to) {
    int count = 0;
    for (int at = 0; at < to; at++) count += streams[at].state == OPEN || streams[at].state == ASKED;
    return count;
}

/* Publish probes until each of the streams up to this number has had one, and all that were under way have arrived. */
static void probe(int to) {
    static uint32_t number;
    double deadline = seconds() + options.handshake_s, sent = 0;
    if (!count_streams(to)) {
        fprintf(stderr, "load: no stream could be opened (last status: %d)\n", refused_status);
        exit(1);
    }
    while (seconds() < deadline) {
        double since = seconds() - (last_delivery() > sent ? last_delivery() : sent);
        bool all = tally.probed >= count_streams(to);
        if (all && sent > 0 && since > SETTLED_S) return;
        if (!all && since > PROBE_AGAIN_S) {
            int taken = publish(&publisher, MARK_PROBE, number++, monotonic_ns());
            sent = seconds();
            if (!taken) {
                fprintf(stderr, "load: the server answered %d to a POST to %s\n", publisher.status, options.publish);
                exit(1);
            }
        }
        turn(50);
    }
}

/* The time of an event is when it was due: a server that keeps the publisher waiting cannot hide it. */
static void *publish_all(void *unused) {
    uint64_t began = monotonic_ns();
    publish_began = (double)began / 1e9;
    for (int number = 0; number < options.events && !stop; number++) {
        uint64_t due = monotonic_ns();
        if (options.rate > 0) {
            due = began + (uint64_t)((double)number * 1e9 / options.rate);
            struct timespec until = {(time_t)(due / 1000000000), (long)(due % 1000000000)};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        }
        if (!publish(&publisher, MARK_EVENT, (uint32_t)number, due)) break;
        answered++;
    }
    publish_ended = seconds();
    publisher_cpu = thread_cpu();
    published = true;
    return unused;
}

/* Publish and read until all is there, or nothing comes any more, or time is over; returns which. */
static const char *run(void) {
    pthread_t thread;
    const char *ended = NULL;
    double began = seconds();
    if (pthread_create(&thread, NULL, publish_all, NULL)) fail("pthread_create");
    while (!ended) {
        turn(20);
        double now = seconds(), last = last_delivery() > publish_ended ? last_delivery() : publish_ended;
        if (published && tally.expected >= (long)answered * tally.probed && now - last > 0.1) ended = "complete";
        else if (published && now - last > options.quiet_s) ended = "quiet";
        else if (now - began > options.deadline_s) ended = "deadline";
    }
    stop = true;
    if (!published && publisher.fd >= 0) shutdown(publisher.fd, SHUT_RDWR);
    pthread_join(thread, NULL);
    return ended;
}

/* What was seen from outside while the streams were measured. */
struct measured {
    struct usage before[GROUPS], with[GROUPS], after[GROUPS];
    struct machine machine;
    int opened;
    double open_s, wall_s, measured_s, reader_cpu;
    const char *ended;
};

static void look(struct usage usage[GROUPS]) {
    for (int at = 0; at < options.group_count; at++) usage[at] = group_usage(&options.groups[at]);
}

static struct measured measure(void) {
    struct measured measured = {0};
    int first = options.streams < 10 ? 1 : options.streams / 10;
    open_streams(0, first);
    probe(first);
    look(measured.before);
    double began = seconds();
    open_streams(first, options.streams);
    measured.open_s = seconds() - began;
    probe(options.streams);
    measured.opened = count_streams(options.streams);
    look(measured.with);

    struct machine machine = machine_usage();
    double reader_cpu = thread_cpu();
    began = seconds();
    measured.ended = run();
    measured.measured_s = seconds() - began;
    measured.machine = machine_since(machine);
    measured.reader_cpu = thread_cpu() - reader_cpu;
    double last = last_delivery();
    measured.wall_s = (last > publish_began ? last : publish_ended) - publish_began;
    look(measured.after);
    return measured;
}

static void print(const struct measured *measured) {
    long lost = 0;
    for (int at = 0; at < options.streams; at++) lost += tally_missing(&streams[at].had, (uint32_t)answered);
    printf(
        "{\"streams\": %d, \"first\": %d, \"opened\": %d, \"subscribed\": %d, \"timed_out\": %d, \"refused_status\": %d, "
        "\"still_open\": %d, \"open_s\": %.3f, ",
        options.streams, options.streams < 10 ? 1 : options.streams / 10, measured->opened, tally.probed, timed_out,
        refused_status, count_streams(options.streams), measured->open_s
    );
    printf(
        "\"events\": %d, \"payload\": %zu, \"rate\": %g, \"answered\": %d, \"last_status\": %d, \"publish_s\": %.4f, "
        "\"connections\": %ld, \"ended\": \"%s\", \"wall_s\": %.4f, \"measured_s\": %.4f, ",
        options.events, options.payload, options.rate, answered, publisher.status, publish_ended - publish_began,
        publisher.connected, measured->ended, measured->wall_s, measured->measured_s
    );
    printf(
        "\"deliveries\": %ld, \"lost\": %ld, \"doubled\": %ld, \"out_of_order\": %ld, \"damaged\": %ld, \"strange\": %ld, ",
        tally.deliveries, lost, tally.doubled, tally.out_of_order, tally.damaged, tally.strange
    );
    printf("\"latency_ms\": {");
    static const struct { const char *name; double part; } parts[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}};
    for (size_t at = 0; at < sizeof parts / sizeof *parts; at++)
        printf("\"%s\": %.4f, ", parts[at].name, (double)histogram_at(&tally.latency, parts[at].part) / 1e6);
    printf("\"max\": %.4f}, \"groups\": {", (double)tally.latency.most / 1e6);
    for (int at = 0; at < options.group_count; at++) {
        const struct usage *before = &measured->before[at], *with = &measured->with[at], *after = &measured->after[at];
        printf(
            "%s\"%s\": {\"cpu_s\": %.2f, \"open_cpu_s\": %.2f, \"pss_before_kb\": %ld, \"pss_with_kb\": %ld, "
            "\"pss_after_kb\": %ld, \"processes\": %d}",
            at ? ", " : "", options.groups[at].name, after->cpu_s - with->cpu_s, with->cpu_s - before->cpu_s, before->pss_kb,
            with->pss_kb, after->pss_kb, after->processes
        );
    }
    printf(
        "}, \"load\": {\"reader_cpu_s\": %.4f, \"publisher_cpu_s\": %.4f}, "
        "\"machine\": {\"busy_s\": %.2f, \"stolen_s\": %.2f}}\n",
        measured->reader_cpu, publisher_cpu, measured->machine.busy_s, measured->machine.stolen_s
    );
}

int main(int count, char **words) {
    options = parse_options(count, words);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    size_t bytes = ((size_t)options.events + 7) / 8;
    uint8_t *bits = calloc((size_t)options.streams, bytes);
    streams = calloc((size_t)options.streams, sizeof *streams);
    for (int at = 0; at < options.streams; at++) streams[at].had.bits = bits + (size_t)at * bytes;
    tally = (struct tally){.events = (uint32_t)options.events, .payload = options.payload};
    publisher = (struct publisher){.address = options.server, .path = options.publish, .payload = options.payload};
    publisher_open(&publisher);
    selector = epoll_create1(0);
    struct measured measured = measure();
    print(&measured);
    return 0;
}
