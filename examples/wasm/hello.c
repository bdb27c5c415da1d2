/* Counts lines, words and bytes of the files in the folders that it is told, as `wc` does; greets first, with GREETING.
 * Ends with 1 if a folder can't be read: a Wasm program sees only the folders that its manifest mounts. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct count {
    unsigned long lines, words, bytes;
};

static void print(struct count count, const char *name) {
    printf("%7lu %7lu %7lu %s\n", count.lines, count.words, count.bytes, name);
}

static int complain(const char *path) {
    fprintf(stderr, "hello: %s: %s\n", path, strerror(errno));
    return -1;
}

static int count_file(const char *path, struct count *count) {
    FILE *file = fopen(path, "rb");
    if (!file)
        return complain(path);
    int within_word = 0;
    for (int c; (c = getc(file)) != EOF; count->bytes++) {
        count->lines += c == '\n';
        count->words += !within_word && !isspace(c);
        within_word = !isspace(c);
    }
    int failed = ferror(file) ? complain(path) : 0;
    fclose(file);
    return failed;
}

static int visible(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

static int count_folder(const char *folder, struct count *total) {
    struct dirent **entries;
    int files = scandir(folder, &entries, visible, alphasort);
    if (files < 0)
        return complain(folder);
    int failed = 0;
    for (int i = 0; i < files; i++) {
        char path[4096];
        struct count count = {0};
        int length = snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
        free(entries[i]);
        if (length < 0 || (size_t)length >= sizeof path || count_file(path, &count) < 0) {
            failed = -1;
            continue;
        }
        print(count, path);
        total->lines += count.lines;
        total->words += count.words;
        total->bytes += count.bytes;
    }
    free(entries);
    return failed;
}

int main(int argc, char **argv) {
    const char *greeting = getenv("GREETING");
    printf("%s from a Wasm program with %d argument%s\n", greeting ? greeting : "Hello", argc - 1, argc == 2 ? "" : "s");
    struct count total = {0};
    int failed = 0;
    for (int i = 1; i < argc; i++)
        failed |= count_folder(argv[i], &total);
    print(total, "total");
    return failed ? 1 : 0;
}
