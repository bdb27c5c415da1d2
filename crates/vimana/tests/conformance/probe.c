/*
 * The workload of the conformance suite: it does what it is told and says what it sees, one line for each thing.
 *
 *   probe COMMAND ARG ... , COMMAND ARG ... , ...
 *
 * Commands run one after the other in one process; a line `== COMMAND` goes before the output of each where there are several.
 * A command that fails says `fail NAME`, with the error's name of POSIX. Without `exit N` the exit code is 0.
 * One source for all isolations: what WASI has no words for is left out there, and says `fail ENOSYS`.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#ifndef __wasi__
#include <arpa/inet.h>
#include <grp.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#endif

extern char **environ;

static const struct { int number; const char *name; } ERRORS[] = {
    {EPERM, "EPERM"},   {ENOENT, "ENOENT"},   {EIO, "EIO"},         {EBADF, "EBADF"},   {ECHILD, "ECHILD"},
    {EAGAIN, "EAGAIN"}, {ENOMEM, "ENOMEM"},   {EACCES, "EACCES"},   {EBUSY, "EBUSY"},   {EEXIST, "EEXIST"},
    {EXDEV, "EXDEV"},   {ENOTDIR, "ENOTDIR"}, {EISDIR, "EISDIR"},   {EINVAL, "EINVAL"}, {ENOTTY, "ENOTTY"},
    {EFBIG, "EFBIG"},   {ENOSPC, "ENOSPC"},   {EROFS, "EROFS"},     {EPIPE, "EPIPE"},   {ENOSYS, "ENOSYS"},
    {ELOOP, "ELOOP"},   {EDQUOT, "EDQUOT"},   {ENOTSUP, "ENOTSUP"},
    {ECONNREFUSED, "ECONNREFUSED"}, {ENETUNREACH, "ENETUNREACH"}, {EHOSTUNREACH, "EHOSTUNREACH"},
    {ETIMEDOUT, "ETIMEDOUT"}, {ECONNRESET, "ECONNRESET"}, {ENOTEMPTY, "ENOTEMPTY"}, {ENAMETOOLONG, "ENAMETOOLONG"},
#ifdef __wasi__
    {ENOTCAPABLE, "ENOTCAPABLE"},
#endif
};

static void fail(int number) {
  for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
    if (ERRORS[i].number == number) {
      printf("fail %s\n", ERRORS[i].name);
      return;
    }
  printf("fail %d\n", number);
}

static void judge(int result) {
  if (result < 0)
    fail(errno);
  else
    puts("ok");
}

static void ready(void) {
  puts("ready");
  fflush(stdout);
}

/* All of a buffer, also where the other side takes it in pieces. */
static void put(int fd, const void *bytes, size_t length) {
  const char *at = bytes;
  while (length > 0) {
    ssize_t written = write(fd, at, length);
    if (written < 0) {
      if (errno == EINTR) continue;
      exit(98);
    }
    at += written;
    length -= (size_t)written;
  }
}

static char buffer[1 << 16];

/* FNV-1a, 64 bits. */
static uint64_t hash(uint64_t sum, const void *bytes, size_t length) {
  const unsigned char *at = bytes;
  for (size_t i = 0; i < length; i++) sum = (sum ^ at[i]) * 0x100000001b3u;
  return sum;
}

/* ---- What was given ---- */

static int arguments;
static char **argument;

/* Arguments that are there to be seen by `args`. */
static void nothing(char **) {}

static void args(char **) {
  /* Length first, so that nothing inside can be mistaken for the end. Long ones are told by their hash. */
  for (int i = 1; i < arguments; i++) {
    size_t length = strlen(argument[i]);
    if (length > 4096)
      printf("%zu#%016llx\n", length, (unsigned long long)hash(0xcbf29ce484222325u, argument[i], length));
    else
      printf("%zu:%s\n", length, argument[i]);
  }
}

static void env(char **) {
  for (char **variable = environ; *variable; variable++) {
    size_t length = strlen(*variable);
    if (length > 4096)
      printf("%.*s=%zu#%016llx\n", (int)strcspn(*variable, "="), *variable, length,
             (unsigned long long)hash(0xcbf29ce484222325u, *variable, length));
    else
      printf("%zu:%s\n", length, *variable);
  }
}

static void cwd(char **) {
  if (getcwd(buffer, sizeof buffer))
    puts(buffer);
  else
    fail(errno);
}

static void now(char **) { printf("%lld\n", (long long)time(NULL)); }

static void fds(char **) {
  /* Those that are open, but for the three that everybody has. */
  struct stat found;
  for (int fd = 3; fd < 1024; fd++)
    if (fstat(fd, &found) == 0) printf("%d\n", fd);
}

static void terminal(char **) {
  printf("%d %d %d\n", isatty(0), isatty(1), isatty(2));
#ifndef __wasi__
  struct winsize size = {0};
  if (ioctl(0, TIOCGWINSZ, &size) == 0) printf("%d %d\n", size.ws_row, size.ws_col);
#endif
}

/* ---- Input and output ---- */

static void cat(char **) {
  fflush(stdout);
  ssize_t got;
  while ((got = read(0, buffer, sizeof buffer)) > 0) put(1, buffer, (size_t)got);
  if (got < 0) exit(97);
}

static void upper(char **) {
  fflush(stdout);
  ssize_t got;
  while ((got = read(0, buffer, sizeof buffer)) > 0) {
    for (ssize_t i = 0; i < got; i++)
      if (buffer[i] >= 'a' && buffer[i] <= 'z') buffer[i] -= 'a' - 'A';
    put(1, buffer, (size_t)got);
  }
}

static void sum(char **) {
  uint64_t all = 0xcbf29ce484222325u, length = 0;
  ssize_t got;
  while ((got = read(0, buffer, sizeof buffer)) > 0) {
    all = hash(all, buffer, (size_t)got);
    length += (uint64_t)got;
  }
  printf("%llu %016llx\n", (unsigned long long)length, (unsigned long long)all);
}

static void flood(char **arg) {
  uint64_t left = strtoull(arg[0], NULL, 10), state = 1, all = 0xcbf29ce484222325u;
  fflush(stdout);
  while (left > 0) {
    size_t piece = left < sizeof buffer ? (size_t)left : sizeof buffer;
    for (size_t i = 0; i < piece; i++) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      buffer[i] = (char)(state >> 56);
    }
    all = hash(all, buffer, piece);
    put(1, buffer, piece);
    left -= piece;
  }
  fprintf(stderr, "sum %016llx\n", (unsigned long long)all);
}

static void binary(char **) {
  unsigned char all[256];
  for (int i = 0; i < 256; i++) all[i] = (unsigned char)i;
  fflush(stdout);
  put(1, all, sizeof all);
}

static void apart(char **) {
  fflush(stdout);
  for (int i = 0; i < 200; i++) {
    char line[32];
    put(1, line, (size_t)snprintf(line, sizeof line, "out %d\n", i));
    put(2, line, (size_t)snprintf(line, sizeof line, "err %d\n", i));
  }
}

static void say(char **arg) { fputs(arg[0], stdout); }

/* ---- Files ---- */

static void write_with(char **arg, int flags) {
  int fd = open(arg[0], O_WRONLY | O_CREAT | flags, 0644);
  if (fd < 0) return fail(errno);
  ssize_t written = write(fd, arg[1], strlen(arg[1]));
  int error = errno, closed = close(fd);
  if (written < 0) return fail(error);
  judge(closed);
}

static void write_file(char **arg) { write_with(arg, O_TRUNC); }
static void append_file(char **arg) { write_with(arg, O_APPEND); }

static void read_file(char **arg) {
  int fd = open(arg[0], O_RDONLY);
  if (fd < 0) return fail(errno);
  fflush(stdout);
  char last = '\n';
  ssize_t got;
  while ((got = read(fd, buffer, sizeof buffer)) > 0) {
    put(1, buffer, (size_t)got);
    last = buffer[got - 1];
  }
  int error = errno;
  if (last != '\n') puts("");
  if (got < 0) fail(error);
  close(fd);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void list(char **arg) {
  DIR *folder = opendir(arg[0]);
  if (!folder) return fail(errno);
  char *names[1024];
  size_t count = 0;
  for (struct dirent *entry; count < 1024 && (entry = readdir(folder));)
    if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")) names[count++] = strdup(entry->d_name);
  closedir(folder);
  qsort(names, count, sizeof *names, by_name);
  for (size_t i = 0; i < count; i++) puts(names[i]);
  puts("ok");
}

static void move(char **arg) { judge(rename(arg[0], arg[1])); }
static void drop(char **arg) { judge(unlink(arg[0])); }
static void folder(char **arg) { judge(mkdir(arg[0], 0755)); }
static void link_to(char **arg) { judge(symlink(arg[0], arg[1])); }
static void size(char **arg) {
  struct stat found;
  if (stat(arg[0], &found) < 0) return fail(errno);
  printf("%lld\n", (long long)found.st_size);
}

/* Writes until there is no room, and says how much went in. */
static void fill(char **arg) {
  int fd = open(arg[0], O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (fd < 0) return fail(errno);
  memset(buffer, 'x', sizeof buffer);
  long long most = arg[1] ? atoll(arg[1]) : (1ll << 40), total = 0;
  int error = 0;
  while (total < most) {
    ssize_t written = write(fd, buffer, sizeof buffer);
    if (written < 0) {
      error = errno;
      break;
    }
    total += written;
  }
#ifndef __wasi__
  if (error == 0 && fsync(fd) < 0) error = errno;
#endif
  close(fd);
  printf("%lld\n", total);
  if (error)
    fail(error);
  else
    puts("ok");
}

/* ---- Ends and limits ---- */

static void leave(char **arg) {
  fflush(stdout);
  exit(atoi(arg[0]));
}

static void cry(char **) {
  fflush(stdout);
  abort();
}

static void spin(char **) {
  ready();
  volatile unsigned long turns = 0;
  for (;;) turns++;
}

/* What is written here has been done, whatever the compiler thinks of it. */
static void *volatile kept;
static volatile int touched;

static void hog(char **) {
  ready();
  for (;;) {
    char *more = malloc(1 << 20);
    kept = more;
    if (!more) abort();
    memset(more, 1, 1 << 20);
    kept = more;
  }
}

/* Nothing of it lies in memory that a program of WASI manages itself: what overflows is the stack of calls. */
__attribute__((noinline)) static int dive(int depth) {
  if (depth == touched) return 0;
  int below = dive(depth + 1);
  touched = below | 1 << 30;
  return below + 1;
}

static void deep(char **) {
  touched = -1;
  ready();
  exit(dive(0) & 1);
}

#ifndef __wasi__
static void pause_for_ever(char **) {
  ready();
  for (;;) pause();
}

static volatile sig_atomic_t caught;
static void note(int signal) { caught = signal; }

/* Says each signal that comes, and ends in order at TERM, INT or USR2. */
static void trap(char **) {
  const int all[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};
  sigset_t blocked, before;
  sigemptyset(&blocked);
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    sigaddset(&blocked, all[i]);
    signal(all[i], note);
  }
  sigprocmask(SIG_BLOCK, &blocked, &before);
  ready();
  for (;;) {
    while (!caught) sigsuspend(&before);
    int signal = caught;
    caught = 0;
    printf("got %d\n", signal);
    fflush(stdout);
    if (signal == SIGTERM || signal == SIGINT || signal == SIGUSR2) exit(7);
  }
}

static void ignore(char **arg) {
  signal(SIGTERM, SIG_IGN);
  signal(SIGINT, SIG_IGN);
  signal(SIGUSR2, SIG_IGN);
  pause_for_ever(arg);
}

/* Doubles for ever, and says when there are 64 of it or it can't grow any more. */
static void bomb(char **) {
  ready();
  bool said = false;
  for (int generation = 1;; generation++) {
    bool failed = fork() < 0;
    if (!said && (failed || generation == 6)) put(1, "spread\n", 7);
    said |= failed || generation >= 6;
  }
}

/* As many children as there may be; they end with their parent. */
static void crowd(char **) {
  int count = 0;
  for (; count < 100000; count++) {
    pid_t child = fork();
    if (child < 0) break;
    if (child == 0)
      for (;;) pause();
  }
  int error = errno;
  printf("%d\n", count);
  fail(error);
}

/* Ends while a child of its has standard output open and would go on for ever. */
static void orphan(char **) {
  fflush(stdout);
  int line[2];
  if (pipe(line) < 0) exit(96);
  if (fork() == 0) {
    put(1, "from the child\n", 15);
    put(line[1], "x", 1);
    for (;;) pause();
  }
  char byte;
  if (read(line[0], &byte, 1) != 1) exit(96);
  put(1, "from the parent\n", 16);
  exit(5);
}

/* ---- Who and where ---- */

static void id(char **) {
  gid_t groups[64];
  int count = getgroups(64, groups);
  printf("%d %d", getuid(), getgid());
  for (int i = 0; i < count; i++) printf(" %d", groups[i]);
  puts("");
}

static void host(char **) {
  gethostname(buffer, sizeof buffer);
  puts(buffer);
}

static void processes(char **) {
  DIR *proc = opendir("/proc");
  if (!proc) return fail(errno);
  for (struct dirent *entry; (entry = readdir(proc));)
    if (atoi(entry->d_name) > 0) puts(entry->d_name);
  closedir(proc);
}

static void status(char **) {
  FILE *file = fopen("/proc/self/status", "r");
  if (!file) return fail(errno);
  while (fgets(buffer, sizeof buffer, file))
    if (!strncmp(buffer, "Cap", 3) || !strncmp(buffer, "NoNew", 5) || !strncmp(buffer, "Sig", 3)) fputs(buffer, stdout);
  fclose(file);
}

static void interfaces(char **) {
  FILE *file = fopen("/proc/net/dev", "r");
  if (!file) return fail(errno);
  for (int line = 0; fgets(buffer, sizeof buffer, file); line++)
    if (line > 1) printf("%.*s\n", (int)strcspn(buffer + strspn(buffer, " "), ":"), buffer + strspn(buffer, " "));
  fclose(file);
}

/* ---- Network ---- */

static void serve(char **arg) {
  int server = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(arg[0]))};
  setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (bind(server, (struct sockaddr *)&address, sizeof address) < 0 || listen(server, 8) < 0) return fail(errno);
  ready();
  for (;;) {
    int client = accept(server, NULL, NULL);
    if (client < 0) continue;
    ssize_t got = read(client, buffer, sizeof buffer);
    if (got > 0) {
      put(client, "echo ", 5);
      put(client, buffer, (size_t)got);
    }
    close(client);
  }
}

static bool answers(int fd, int milliseconds, short what) {
  struct pollfd one = {.fd = fd, .events = what};
  return poll(&one, 1, milliseconds) > 0;
}

static void connect_to(char **arg) {
  int client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), error = 0;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(arg[1]))};
  inet_pton(AF_INET, arg[0], &address.sin_addr);
  if (connect(client, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS) {
    error = errno;
  } else if (!answers(client, 2000, POLLOUT)) {
    error = ETIMEDOUT;
  } else {
    socklen_t length = sizeof error;
    getsockopt(client, SOL_SOCKET, SO_ERROR, &error, &length);
  }
  close(client);
  errno = error;
  judge(error ? -1 : 0);
}

/* The default gateway, as connect wants it. */
static bool gateway(char *text) {
  FILE *file = fopen("/proc/net/route", "r");
  bool found = false;
  while (file && !found && fgets(buffer, sizeof buffer, file)) {
    unsigned destination, via;
    if (sscanf(buffer, "%*s %x %x", &destination, &via) == 2 && destination == 0) {
      struct in_addr address = {.s_addr = via};
      inet_ntop(AF_INET, &address, text, INET_ADDRSTRLEN);
      found = true;
    }
  }
  if (file) fclose(file);
  return found;
}

static void connect_to_gateway(char **arg) {
  char text[INET_ADDRSTRLEN];
  if (!gateway(text)) return (void)puts("no gateway");
  connect_to((char *[]){text, arg[0], NULL});
}

/* Asks the name server of /etc/resolv.conf for the address of a name; any answer is one. */
static void resolve(char **arg) {
  FILE *file = fopen("/etc/resolv.conf", "r");
  char server[64] = "";
  while (file && !server[0] && fgets(buffer, sizeof buffer, file)) sscanf(buffer, "nameserver %63s", server);
  if (file) fclose(file);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(53)};
  if (inet_pton(AF_INET, server, &address.sin_addr) != 1) return (void)puts("no name server");
  unsigned char question[512] = {0x12, 0x34, 1, 0, 0, 1}, answer[512];
  size_t length = 12;
  for (char *part = arg[0]; *part;) {
    size_t size = strcspn(part, ".");
    question[length++] = (unsigned char)size;
    memcpy(question + length, part, size);
    length += size;
    part += size + (part[size] == '.');
  }
  length++;
  question[length + 1] = question[length + 3] = 1;
  length += 4;
  int client = socket(AF_INET, SOCK_DGRAM, 0);
  for (int attempt = 0; attempt < 5; attempt++) {
    if (sendto(client, question, length, 0, (struct sockaddr *)&address, sizeof address) < 0) return fail(errno);
    if (answers(client, 1500, POLLIN)) {
      ssize_t got = recv(client, answer, sizeof answer, 0);
      if (got >= 12 && answer[0] == 0x12 && answer[1] == 0x34) return (void)puts("ok");
    }
  }
  fail(ETIMEDOUT);
}
#endif

static void absent(char **) { fail(ENOSYS); }

static const struct { const char *name; void (*run)(char **); int needs; } COMMANDS[] = {
    {"args", args, 0}, {"env", env, 0}, {"cwd", cwd, 0}, {"now", now, 0}, {"fds", fds, 0}, {"terminal", terminal, 0},
    {"cat", cat, 0}, {"upper", upper, 0}, {"sum", sum, 0}, {"flood", flood, 1}, {"binary", binary, 0},
    {"apart", apart, 0}, {"say", say, 1}, {"nothing", nothing, 0},
    {"write", write_file, 2}, {"append", append_file, 2}, {"read", read_file, 1}, {"list", list, 1},
    {"move", move, 2}, {"drop", drop, 1}, {"folder", folder, 1}, {"link", link_to, 2}, {"size", size, 1},
    {"fill", fill, 1},
    {"exit", leave, 1}, {"abort", cry, 0}, {"spin", spin, 0}, {"hog", hog, 0}, {"deep", deep, 0},
#ifndef __wasi__
    {"pause", pause_for_ever, 0}, {"trap", trap, 0}, {"ignore", ignore, 0}, {"bomb", bomb, 0}, {"crowd", crowd, 0},
    {"orphan", orphan, 0}, {"id", id, 0}, {"host", host, 0}, {"processes", processes, 0},
    {"status", status, 0}, {"interfaces", interfaces, 0}, {"serve", serve, 1}, {"connect", connect_to, 2},
    {"connect-gateway", connect_to_gateway, 1}, {"resolve", resolve, 1},
#endif
};

static void (*command(const char *name, int given))(char **) {
  for (size_t i = 0; i < sizeof COMMANDS / sizeof *COMMANDS; i++)
    if (!strcmp(COMMANDS[i].name, name)) {
      if (given < COMMANDS[i].needs) {
        fprintf(stderr, "probe: %s needs %d arguments\n", name, COMMANDS[i].needs);
        exit(99);
      }
      return COMMANDS[i].run;
    }
  return absent;
}

int main(int argc, char **argv) {
  arguments = argc;
  argument = argv;
  bool several = false;
  for (int i = 1; i < argc; i++) several |= !strcmp(argv[i], ",");
  for (int at = 1; at < argc;) {
    int end = at;
    while (end < argc && strcmp(argv[end], ",")) end++;
    char *own[64] = {0};
    for (int i = at + 1; i < end && i - at - 1 < 63; i++) own[i - at - 1] = argv[i];
    if (several) printf("== %s\n", argv[at]);
    fflush(stdout);
    command(argv[at], end - at - 1)(own);
    fflush(stdout);
    at = end + 1;
  }
  return 0;
}
