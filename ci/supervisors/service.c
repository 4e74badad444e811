/* A service for measurements: it says on a datagram socket what it does and when.
 *   service SOCKET NAME wait LINES          writes LINES lines of 80 bytes, then waits
 *   service SOCKET NAME lines COUNT LENGTH  writes COUNT lines of LENGTH bytes, then waits
 *   service SOCKET NAME slow MILLISECONDS   needs that long to stop
 *   service SOCKET NAME port PORT           listens there after 0.2 s
 *   service SOCKET NAME orphans COUNT       leaves so many processes to process 1
 *   service SOCKET NAME churn COUNT         so many, one after the other, that end at once
 * A message is "NAME EVENT NANOSECONDS" of CLOCK_MONOTONIC. */
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *path, *name;
static volatile sig_atomic_t asked;

static void tell(const char *event) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strncpy(to.sun_path, path, sizeof to.sun_path - 1);
    char text[256];
    int length = snprintf(text, sizeof text, "%s %s %lld", name, event,
                          now.tv_sec * 1000000000LL + now.tv_nsec);
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    sendto(fd, text, length, 0, (struct sockaddr *)&to, sizeof to);
    close(fd);
}

static void pause_for(long milliseconds) {
    struct timespec left = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0) {}
}

static void note(int signal) { asked = signal; }

static void lines(long count, long length) {
    char *line = malloc(length + 1);
    memset(line, name[strlen(name) - 1], length);
    line[length] = '\n';
    /* Short lines are written many at a time, as programs that buffer do. */
    long many = length < 4096 ? 65536 / (length + 1) : 1;
    char *block = malloc(many * (length + 1));
    for (long at = 0; at < many; at++) memcpy(block + at * (length + 1), line, length + 1);
    while (count > 0) {
        long now = count < many ? count : many;
        for (long done = 0, all = now * (length + 1); done < all;) {
            long wrote = write(1, block + done, all - done);
            if (wrote < 0) exit(1);
            done += wrote;
        }
        count -= now;
    }
}

int main(int argc, char **argv) {
    if (argc < 5) return 64;
    path = argv[1];
    name = argv[2];
    const char *what = argv[3];
    long number = atol(argv[4]);
    tell("up");
    if (!strcmp(what, "wait")) lines(number, 79);
    if (!strcmp(what, "lines") && argc > 5) {
        pause_for(500);
        tell("begins");
        lines(number, atol(argv[5]));
    }
    if (!strcmp(what, "port")) {
        pause_for(200);
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(number)};
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
        bind(fd, (struct sockaddr *)&at, sizeof at);
        listen(fd, 16);
        tell("open");
    }
    if (!strcmp(what, "orphans")) {
        if (fork() == 0) {
            for (; number > 0; number--)
                if (fork() == 0) for (;;) pause();
            _exit(0);
        }
        wait(NULL);
        tell("orphans");
    }
    if (!strcmp(what, "churn")) {
        for (; number > 0; number--) {
            pid_t child = fork();
            if (child == 0) {
                if (fork() == 0) _exit(0);
                _exit(0);
            }
            waitpid(child, NULL, 0);
        }
        tell("churned");
    }
    if (!strcmp(what, "slow")) {
        struct sigaction action = {.sa_handler = note};
        sigaction(SIGTERM, &action, NULL);
        sigset_t term, before;
        sigemptyset(&term);
        sigaddset(&term, SIGTERM);
        sigprocmask(SIG_BLOCK, &term, &before);
        while (!asked) sigsuspend(&before);
        pause_for(number);
        tell("stopped");
        return 0;
    }
    for (;;) pause();
}
