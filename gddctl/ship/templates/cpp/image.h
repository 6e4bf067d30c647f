// Images of the C++ examples: binary PPM in, binary PGM out, and the way back from the network's size to the image's.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "model.h"

struct Mask {
    int height, width;
    std::vector<uint8_t> ids;  // row by row
};

// An RGB image of the network's size, as "runner/predict.py IMAGE INPUT.ppm --input" writes it.
inline std::vector<uint8_t> read_input(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string magic;
    int width = 0, height = 0, most = 0;
    if (!(file >> magic >> width >> height >> most) || magic != "P6" || most != 255)
        throw std::runtime_error(path + ": not a binary PPM file (P6, 8 bits)");
    file.get();  // the one blank after the header
    if (width != model::kWidth || height != model::kHeight)
        throw std::runtime_error(path + ": not of the network's size; resize it with runner/predict.py IMAGE INPUT.ppm --input");
    std::vector<uint8_t> pixels(static_cast<size_t>(3) * width * height);
    if (!file.read(reinterpret_cast<char*>(pixels.data()), static_cast<std::streamsize>(pixels.size())))
        throw std::runtime_error(path + ": ends too early");
    return pixels;
}

inline void write_mask(const std::string& path, const Mask& mask) {
    std::ofstream file(path, std::ios::binary);
    file << "P5\n" << mask.width << " " << mask.height << "\n255\n";
    file.write(reinterpret_cast<const char*>(mask.ids.data()), static_cast<std::streamsize>(mask.ids.size()));
    file.flush();
    if (!file) throw std::runtime_error(path + ": cannot be written");
}

// The part of the network's input, from its top left corner, that shows an image of this size; the rest is padding.
inline std::pair<int, int> content_of(int height, int width) {
    if (!model::kLetterbox) return {model::kHeight, model::kWidth};
    const double ratio = std::min(model::kHeight / static_cast<double>(height), model::kWidth / static_cast<double>(width));
    const auto side = [ratio](int from, int most) { return std::min(most, std::max(1, static_cast<int>(std::nearbyint(from * ratio)))); };
    return {side(height, model::kHeight), side(width, model::kWidth)};
}

// For each of `to` pixels, which of `from` its centre falls on.
inline std::vector<int> nearest(int from, int to) {
    std::vector<int> places(to);
    for (int64_t i = 0; i < to; ++i) places[i] = static_cast<int>((2 * i + 1) * from / (2 * static_cast<int64_t>(to)));
    return places;
}

// The mask at the size of the image it belongs to.
inline Mask restore(const uint8_t* answer, int height, int width) {
    const auto [tall, wide] = content_of(height, width);
    std::vector<int> rows = nearest(tall, height), columns = nearest(wide, width);
    Mask mask{height, width, std::vector<uint8_t>(static_cast<size_t>(height) * width)};
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x)
            mask.ids[static_cast<size_t>(y) * width + x] = answer[static_cast<size_t>(rows[y]) * model::kWidth + columns[x]];
    return mask;
}
