// Command otsu-go is Otsu's threshold as a command task: otsu-go --args-json ARGS.json --out-json OUTPUT.json, or for
// Fractal v1 otsu-go -j ARGS.json --metadata-out METADIFF.json
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// imageFile is the name of an image in its folder.
const imageFile = "image.pgm"

type args struct {
	ZarrURL *string `json:"zarr_url"`
	ZarrDir string  `json:"zarr_dir"`
	Folder  string  `json:"folder"`
	// The args of Fractal v1.
	InputPaths []string `json:"input_paths"`
	OutputPath string   `json:"output_path"`
	Metadata   struct {
		ImageFolder string `json:"image_folder"`
	} `json:"metadata"`
	Component *string `json:"component"`
	Bins      int     `json:"bins"`
	WriteMask bool    `json:"write_mask"`
}

// image is a grey image of width * height pixels, row by row, each from 0 to max.
type image struct {
	width, height, max int
	pixels             []uint16
}

func main() {
	var argsFile, outputFile string
	for _, name := range []string{"args-json", "j"} {
		flag.StringVar(&argsFile, name, "", "file with the args")
	}
	for _, name := range []string{"out-json", "metadata-out"} {
		flag.StringVar(&outputFile, name, "", "file for the output")
	}
	flag.Parse()
	if err := call(argsFile, outputFile); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func call(argsFile, outputFile string) error {
	text, err := os.ReadFile(argsFile)
	if err != nil {
		return err
	}
	a := args{Bins: 256, WriteMask: true}
	if err := json.Unmarshal(text, &a); err != nil {
		return fmt.Errorf("cannot use the args: %w", err)
	}
	output, err := run(a)
	if err != nil {
		return err
	}
	text, err = json.Marshal(output)
	if err != nil {
		return err
	}
	return os.WriteFile(outputFile, text, 0o666)
}

// run makes a call of either version of Fractal. It returns the output of the call.
func run(a args) (map[string]any, error) {
	switch {
	case len(a.InputPaths) > 0:
		return runV1(a)
	case a.ZarrURL == nil:
		return importImages(a.Folder, a.ZarrDir)
	}
	folder := *a.ZarrURL
	name, path := filepath.Base(folder), filepath.Join(folder, imageFile)
	threshold, err := segment(name, path, filepath.Join(folder, "mask.pgm"), a)
	if err != nil {
		return nil, err
	}
	update := map[string]any{"zarr_url": folder, "attributes": map[string]int{"threshold": threshold}}
	return map[string]any{"image_list_updates": []any{update}}, nil
}

// importImages copies each image of a folder to a folder of its own in the zarr_dir.
func importImages(folder, zarrDir string) (map[string]any, error) {
	names, err := imageNames(folder)
	if err != nil {
		return nil, err
	}
	var updates []any
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			return nil, fmt.Errorf("cannot read the image: %w", err)
		}
		zarrURL := filepath.Join(zarrDir, strings.TrimSuffix(name, ".pgm"))
		err = os.MkdirAll(zarrURL, 0o777)
		if err == nil {
			err = os.WriteFile(filepath.Join(zarrURL, imageFile), data, 0o666)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot write the image: %w", err)
		}
		updates = append(updates, map[string]any{"zarr_url": zarrURL, "attributes": map[string]string{"file": name}})
	}
	return map[string]any{"image_list_updates": updates}, nil
}

// runV1 makes the mask of the image that the component names; without a component, it says which images there are.
// It returns the metadiff.
func runV1(a args) (map[string]any, error) {
	if a.Component == nil {
		names, err := imageNames(a.InputPaths[0])
		return map[string]any{"image": names, "image_folder": a.InputPaths[0]}, err
	}
	// In a workflow only the first task gets the input: what lists the images says where they are.
	folder, component := cmp.Or(a.Metadata.ImageFolder, a.InputPaths[0]), *a.Component
	mask := filepath.Join(a.OutputPath, strings.TrimSuffix(component, ".pgm")+"_mask.pgm")
	threshold, err := segment(component, filepath.Join(folder, component), mask, a)
	return map[string]any{"thresholds": map[string]int{component: threshold}}, err
}

// segment finds the threshold of an image, and writes its mask if that is wanted.
func segment(name, path, maskPath string, a args) (int, error) {
	if a.Bins < 2 || a.Bins > 65536 {
		return 0, errors.New("bins must be a whole number from 2 to 65536")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("cannot read the image: %w", err)
	}
	img, err := parsePGM(data)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	threshold := otsuThreshold(img, a.Bins)
	fmt.Printf("%s: threshold %d\n", name, threshold)
	if a.WriteMask {
		mask := fmt.Appendf(nil, "P5\n%d %d\n255\n", img.width, img.height)
		for _, pixel := range img.pixels {
			if int(pixel) >= threshold {
				mask = append(mask, 255)
			} else {
				mask = append(mask, 0)
			}
		}
		if err := os.WriteFile(maskPath, mask, 0o666); err != nil {
			return 0, fmt.Errorf("cannot write the mask: %w", err)
		}
	}
	return threshold, nil
}

// imageNames returns the names of the images in a folder, sorted.
func imageNames(folder string) ([]string, error) {
	entries, err := os.ReadDir(folder) // sorted by name
	if err != nil {
		return nil, fmt.Errorf("cannot list the images: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), ".pgm") {
			names = append(names, entry.Name())
		}
	}
	if names == nil {
		return nil, fmt.Errorf("there is no .pgm image in %s", folder)
	}
	return names, nil
}

// parsePGM reads a binary PGM image: P5, width, height, maximum, one blank, pixels of one byte, or two if the maximum
// is above 255.
func parsePGM(data []byte) (image, error) {
	rest, found := bytes.CutPrefix(data, []byte("P5"))
	if !found {
		return image{}, errors.New("no binary PGM image, which begins with P5")
	}
	var numbers [3]int
	for i := range numbers {
		numbers[i], rest = takeNumber(rest)
	}
	width, height, max := numbers[0], numbers[1], numbers[2]
	if width == 0 || height == 0 || max == 0 || max > 65535 || len(rest) == 0 || !isBlank(rest[0]) {
		return image{}, errors.New("its header needs a width, a height and a maximum of at most 65535, each above 0")
	}
	rest = rest[1:]
	pixelBytes := 1
	if max > 255 {
		pixelBytes = 2
	}
	needed := width * height * pixelBytes
	if len(rest) < needed {
		return image{}, fmt.Errorf("cut off: %d x %d pixels need %d bytes, and there are %d", width, height, needed, len(rest))
	}
	pixels := make([]uint16, width*height)
	for i := range pixels {
		for _, b := range rest[i*pixelBytes : (i+1)*pixelBytes] {
			pixels[i] = pixels[i]<<8 | uint16(b)
		}
		if int(pixels[i]) > max {
			return image{}, fmt.Errorf("a pixel is %d, above the maximum %d", pixels[i], max)
		}
	}
	return image{width, height, max, pixels}, nil
}

// takeNumber takes a number of 7 digits at most, with the blanks and comments before it; it is 0 if there is none.
func takeNumber(rest []byte) (int, []byte) {
	for len(rest) > 0 && (isBlank(rest[0]) || rest[0] == '#') {
		if rest[0] == '#' {
			_, rest, _ = bytes.Cut(rest, []byte("\n"))
		} else {
			rest = rest[1:]
		}
	}
	number, digits := 0, 0
	for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
		number = number*10 + int(rest[digits]-'0')
		digits++
	}
	if digits > 7 {
		number = 0
	}
	return number, rest[digits:]
}

func isBlank(b byte) bool {
	return b == ' ' || b == '\t' || b == '\r' || b == '\n'
}

// otsuThreshold is the smallest pixel value of the foreground: the bound between two bins that separates the pixels
// best. In an image of one bin only it is above every pixel.
//
// Source: N. Otsu, "A threshold selection method from gray-level histograms", 1979.
func otsuThreshold(img image, bins int) int {
	values := img.max + 1
	histogram := make([]int, bins)
	for _, pixel := range img.pixels {
		histogram[int(pixel)*bins/values]++
	}
	total, totalSum := float64(len(img.pixels)), 0.0
	for bin, n := range histogram {
		totalSum += float64(bin) * float64(n)
	}
	below, sumBelow, bestVariance, threshold := 0.0, 0.0, 0.0, values
	for bin, n := range histogram {
		below += float64(n)
		sumBelow += float64(bin) * float64(n)
		above := total - below
		if below == 0 || above == 0 {
			continue
		}
		difference := sumBelow/below - (totalSum-sumBelow)/above
		variance := below * above * difference * difference
		if variance > bestVariance {
			bestVariance = variance
			threshold = ((bin+1)*values + bins - 1) / bins
		}
	}
	return threshold
}
