#include "publisher.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "reader.h"

#define ANSWER_WITHIN_S 60
#define ANSWER_MAX 65536

void publisher_open(struct publisher *publisher) {
    const char *head = "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n";
    size_t room = 1024 + strlen(publisher->path) + publisher->payload;
    publisher->request = malloc(room);
    publisher->begin = (size_t)snprintf(publisher->request, room, head, publisher->path, publisher->payload);
    memset(publisher->request + publisher->begin, 'x', publisher->payload);
    publisher->fd = -1;
}

static void hang_up(struct publisher *publisher) {
    close(publisher->fd);
    publisher->fd = -1;
}

/* Connected, and not closed by the server since the last answer. */
static bool connected(struct publisher *publisher) {
    char byte;
    if (publisher->fd >= 0 && recv(publisher->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN) return true;
    if (publisher->fd >= 0) hang_up(publisher);
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct timeval within = {ANSWER_WITHIN_S, 0};
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &within, sizeof within);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &within, sizeof within);
    if (connect(fd, (struct sockaddr *)&publisher->address, sizeof publisher->address) < 0) {
        close(fd);
        return false;
    }
    publisher->fd = fd;
    publisher->connected++;
    return true;
}

/* How long the answer is whose first bytes these are; 0: it cannot be told yet. */
static size_t answer_length(const char *answer, size_t count) {
    const char *body = strstr(answer, "\r\n\r\n"), *field;
    if (!body) return 0;
    size_t head = (size_t)(body + 4 - answer);
    if ((field = strcasestr(answer, "\r\ncontent-length:")) && field < body) return head + strtoul(field + 17, NULL, 10);
    if ((field = strcasestr(answer, "\r\ntransfer-encoding: chunked")) && field < body)
        return count >= head + 5 && memcmp(answer + count - 5, "0\r\n\r\n", 5) == 0 ? count : 0;
    return head; /* 204 */
}

static int read_answer(struct publisher *publisher) {
    char answer[ANSWER_MAX];
    for (size_t count = 0, length = 0; !length || count < length; length = answer_length(answer, count)) {
        if (count == sizeof answer - 1) return 0;
        ssize_t got = recv(publisher->fd, answer + count, sizeof answer - 1 - count, 0);
        if (got <= 0) return 0;
        count += (size_t)got;
        answer[count] = 0;
    }
    int status = atoi(answer + 9);
    const char *field = strcasestr(answer, "\r\nconnection: close");
    if (field && field < strstr(answer, "\r\n\r\n")) hang_up(publisher);
    return status;
}

int publish(struct publisher *publisher, char mark, uint32_t number, uint64_t sent_ns) {
    char start[PAYLOAD_START_LENGTH + 1];
    publisher->status = 0;
    if (!connected(publisher)) return 0;
    snprintf(start, sizeof start, PAYLOAD_START, mark, number, (unsigned long long)sent_ns);
    memcpy(publisher->request + publisher->begin, start, PAYLOAD_START_LENGTH);
    size_t length = publisher->begin + publisher->payload;
    for (size_t sent = 0; sent < length;) {
        ssize_t part = send(publisher->fd, publisher->request + sent, length - sent, MSG_NOSIGNAL);
        if (part <= 0) return hang_up(publisher), 0;
        sent += (size_t)part;
    }
    publisher->status = read_answer(publisher);
    if (!publisher->status && publisher->fd >= 0) hang_up(publisher);
    return publisher->status >= 200 && publisher->status < 300;
}
