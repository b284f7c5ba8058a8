/* Otsu's threshold as a command task: otsu-c --args-json ARGS.json --out-json OUTPUT.json, or for Fractal v1
   otsu-c -j ARGS.json --metadata-out METADIFF.json */
#include "json.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Name of an image in its folder. */
#define IMAGE "image.pgm"

/* A grey image of width * height pixels, row by row, each from 0 to max. */
struct image {
    uint64_t width, height, max;
    size_t n_pixels;
    uint16_t *pixels;
};

/* Ends the call with an error. */
static _Noreturn void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("error: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(EXIT_FAILURE);
}

static void *allocate(size_t n_bytes)
{
    void *memory = calloc(n_bytes, 1);
    if (memory == NULL)
        fail("no memory for %zu bytes", n_bytes);
    return memory;
}

static char *join(const char *folder, const char *name, size_t name_length, const char *ending)
{
    size_t n_bytes = strlen(folder) + 1 + name_length + strlen(ending) + 1;
    char *path = allocate(n_bytes);
    snprintf(path, n_bytes, "%s/%.*s%s", folder, (int)name_length, name, ending);
    return path;
}

/* The whole of a file, with a 0 after its end. */
static char *read_file(const char *path, size_t *length)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0)
        fail("cannot read %s: %s", path, strerror(errno));
    *length = (size_t)ftell(file);
    rewind(file);
    char *bytes = allocate(*length + 1);
    if (fread(bytes, 1, *length, file) != *length)
        fail("cannot read %s: %s", path, strerror(errno));
    fclose(file);
    return bytes;
}

static FILE *create_file(const char *path)
{
    FILE *file = fopen(path, "wb");
    if (file == NULL)
        fail("cannot write %s: %s", path, strerror(errno));
    return file;
}

static void close_written(FILE *file, const char *path)
{
    bool failed = ferror(file) != 0;
    if (fclose(file) != 0 || failed)
        fail("cannot write %s: %s", path, strerror(errno));
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Takes a number of 7 digits at most, with the blanks and comments before it; 0 if there is none. */
static uint64_t take_number(const char **rest)
{
    for (*rest += strspn(*rest, " \t\r\n"); **rest == '#'; *rest += strspn(*rest, " \t\r\n"))
        *rest += strcspn(*rest, "\n");
    size_t n_digits = strspn(*rest, "0123456789");
    uint64_t number = n_digits <= 7 ? strtoull(*rest, NULL, 10) : 0;
    *rest += n_digits;
    return n_digits > 0 ? number : 0;
}

/* Reads a binary PGM image: P5, width, height, maximum, one blank, pixels of one byte, or two if the maximum is above
   255. */
static struct image parse_pgm(const char *component, const char *bytes, size_t length)
{
    if (length < 2 || memcmp(bytes, "P5", 2) != 0)
        fail("%s: no binary PGM image, which begins with P5", component);
    const char *rest = bytes + 2;
    struct image image = {0};
    image.width = take_number(&rest);
    image.height = take_number(&rest);
    image.max = take_number(&rest);
    if (image.width == 0 || image.height == 0 || image.max == 0 || image.max > 65535 || !is_blank(*rest))
        fail("%s: its header needs a width, a height and a maximum of at most 65535, each above 0", component);
    const unsigned char *data = (const unsigned char *)rest + 1;
    uint64_t pixel_bytes = image.max < 256 ? 1 : 2, needed = image.width * image.height * pixel_bytes;
    size_t present = length - (size_t)((const char *)data - bytes);
    if (present < needed)
        fail("%s: cut off: %llu x %llu pixels need %llu bytes, and there are %zu", component, image.width, image.height,
             needed, present);
    image.n_pixels = (size_t)(image.width * image.height);
    image.pixels = allocate(image.n_pixels * sizeof *image.pixels);
    for (size_t i = 0; i < image.n_pixels; i++) {
        image.pixels[i] = pixel_bytes == 1 ? data[i] : (uint16_t)(data[2 * i] << 8 | data[2 * i + 1]);
        if (image.pixels[i] > image.max)
            fail("%s: a pixel is %u, above the maximum %llu", component, image.pixels[i], image.max);
    }
    return image;
}

/* The smallest pixel value of the foreground: the bound between two bins that separates the pixels best. In an image of
   one bin only it is above every pixel.
   Source: N. Otsu, "A threshold selection method from gray-level histograms", 1979. */
static uint64_t otsu_threshold(const struct image *image, uint64_t bins)
{
    uint64_t n_values = image->max + 1, threshold = n_values;
    uint64_t *histogram = allocate(bins * sizeof *histogram);
    for (size_t i = 0; i < image->n_pixels; i++)
        histogram[image->pixels[i] * bins / n_values]++;
    double total = (double)image->n_pixels, total_sum = 0, below = 0, sum_below = 0, best_variance = 0;
    for (uint64_t bin = 0; bin < bins; bin++)
        total_sum += (double)bin * (double)histogram[bin];
    for (uint64_t bin = 0; bin < bins; bin++) {
        below += (double)histogram[bin];
        sum_below += (double)bin * (double)histogram[bin];
        double above = total - below;
        if (below == 0 || above == 0)
            continue;
        double difference = sum_below / below - (total_sum - sum_below) / above;
        double variance = below * above * difference * difference;
        if (variance > best_variance) {
            best_variance = variance;
            threshold = ((bin + 1) * n_values + bins - 1) / bins;
        }
    }
    return threshold;
}

static int is_image(const struct dirent *entry)
{
    size_t length = strlen(entry->d_name);
    return length >= 4 && strcmp(entry->d_name + length - 4, ".pgm") == 0;
}

/* The names of the images in a folder, sorted. Returns how many there are. */
static int image_names(const char *folder, struct dirent ***entries)
{
    int n_images = scandir(folder, entries, is_image, alphasort);
    if (n_images < 0)
        fail("cannot list %s: %s", folder, strerror(errno));
    if (n_images == 0)
        fail("there is no .pgm image in %s", folder);
    return n_images;
}

/* Finds the threshold of an image, and writes its mask unless the args say no. */
static uint64_t segment(const char *name, const char *path, const char *mask_path, const char *args)
{
    const char *bins_value = json_member(args, "bins"), *write_mask = json_member(args, "write_mask");
    char *end = "";
    long bins = bins_value ? strtol(bins_value, &end, 10) : 256;
    if (bins < 2 || bins > 65536 || *end == '.' || *end == 'e' || *end == 'E')
        fail("bins must be a whole number from 2 to 65536");
    if (write_mask && strncmp(write_mask, "true", 4) != 0 && strncmp(write_mask, "false", 5) != 0)
        fail("write_mask must be true or false");

    size_t length;
    const char *bytes = read_file(path, &length);
    struct image image = parse_pgm(name, bytes, length);
    uint64_t threshold = otsu_threshold(&image, (uint64_t)bins);
    printf("%s: threshold %llu\n", name, threshold);
    if (write_mask == NULL || *write_mask == 't') {
        FILE *mask = create_file(mask_path);
        fprintf(mask, "P5\n%llu %llu\n255\n", image.width, image.height);
        for (size_t i = 0; i < image.n_pixels; i++)
            fputc(image.pixels[i] >= threshold ? 255 : 0, mask);
        close_written(mask, mask_path);
    }
    return threshold;
}

/* Copies each image of a folder to a folder of its own in zarr_dir, and writes the changes of the image list. */
static void import_images(const char *folder, const char *zarr_dir, FILE *output)
{
    struct dirent **entries;
    int n_images = image_names(folder, &entries);
    for (int i = 0; i < n_images; i++) {
        const char *file = entries[i]->d_name;
        size_t length;
        const char *bytes = read_file(join(folder, file, strlen(file), ""), &length);
        const char *zarr_url = join(zarr_dir, file, strlen(file) - 4, "");
        if (mkdir(zarr_url, 0777) != 0 && errno != EEXIST)
            fail("cannot create %s: %s", zarr_url, strerror(errno));
        const char *path = join(zarr_url, IMAGE, strlen(IMAGE), "");
        FILE *copy = create_file(path);
        fwrite(bytes, 1, length, copy);
        close_written(copy, path);
        fputs(i == 0 ? "{\"image_list_updates\": [{\"zarr_url\": " : ", {\"zarr_url\": ", output);
        json_write_string(output, zarr_url);
        fputs(", \"attributes\": {\"file\": ", output);
        json_write_string(output, file);
        fputs("}}", output);
    }
    fputs("]}", output);
}

/* Makes the mask of the image in the folder zarr_url; without it, imports the images of a folder. */
static void call(const char *args, FILE *output)
{
    const char *zarr_url = json_string(json_member(args, "zarr_url"));
    if (zarr_url == NULL) {
        const char *folder = json_string(json_member(args, "folder"));
        const char *zarr_dir = json_string(json_member(args, "zarr_dir"));
        if (folder == NULL || zarr_dir == NULL)
            fail("folder and zarr_dir must be paths");
        import_images(folder, zarr_dir, output);
        return;
    }
    const char *slash = strrchr(zarr_url, '/'), *name = slash ? slash + 1 : zarr_url;
    const char *path = join(zarr_url, IMAGE, strlen(IMAGE), ""), *mask = join(zarr_url, "mask", 4, ".pgm");
    uint64_t threshold = segment(name, path, mask, args);
    fputs("{\"image_list_updates\": [{\"zarr_url\": ", output);
    json_write_string(output, zarr_url);
    fprintf(output, ", \"attributes\": {\"threshold\": %llu}}]}", threshold);
}

/* Makes the mask of the image that the component names; without a component, writes which images there are. */
static void call_v1(const char *args, FILE *metadiff)
{
    const char *input = json_string(json_first(json_member(args, "input_paths")));
    if (input == NULL)
        fail("input_paths has no path");
    const char *component = json_string(json_member(args, "component"));
    if (component == NULL) {
        struct dirent **entries;
        int n_images = image_names(input, &entries);
        for (int i = 0; i < n_images; i++) {
            fputs(i == 0 ? "{\"image\": [" : ", ", metadiff);
            json_write_string(metadiff, entries[i]->d_name);
        }
        fputs("], \"image_folder\": ", metadiff);
        json_write_string(metadiff, input);
        fputs("}", metadiff);
        return;
    }
    /* In a workflow only the first task gets the input: what lists the images says where they are. */
    const char *folder = json_string(json_member(json_member(args, "metadata"), "image_folder"));
    const char *output = json_string(json_member(args, "output_path"));
    if (output == NULL)
        fail("output_path is no path");
    size_t stem = strlen(component);
    if (stem >= 4 && strcmp(component + stem - 4, ".pgm") == 0)
        stem -= 4;
    const char *path = join(folder ? folder : input, component, strlen(component), "");
    uint64_t threshold = segment(component, path, join(output, component, stem, "_mask.pgm"), args);
    fputs("{\"thresholds\": {", metadiff);
    json_write_string(metadiff, component);
    fprintf(metadiff, ": %llu}}", threshold);
}

int main(int argc, char **argv)
{
    bool is_v1 = argc == 5 && strcmp(argv[1], "-j") == 0 && strcmp(argv[3], "--metadata-out") == 0;
    if (!is_v1 && (argc != 5 || strcmp(argv[1], "--args-json") != 0 || strcmp(argv[3], "--out-json") != 0))
        fail("usage: otsu-c --args-json ARGS.json --out-json OUTPUT.json");
    size_t length;
    const char *args = read_file(argv[2], &length), *output_path = argv[4];
    FILE *output = create_file(output_path);
    if (is_v1)
        call_v1(args, output);
    else
        call(args, output);
    close_written(output, output_path);
    return EXIT_SUCCESS;
}
