//! The loss of runs as a PNG, for places that show no HTML.

use std::path::Path;
use std::sync::OnceLock;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use super::history::History;
use crate::checkpoint::storage::replace_file;
use crate::error::{Error, Result};

const SIZE: (u32, u32) = (1200, 640);
const FONT: &str = "report";
/// Pixels.
const TEXT: u32 = 19;
/// Those of the page (assets/report/style.css), on white.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0x25, 0x63, 0xeb),
    RGBColor(0xd9, 0x48, 0x0f),
    RGBColor(0x0f, 0x8a, 0x4d),
    RGBColor(0x8b, 0x2f, 0xd6),
    RGBColor(0xc2, 0x25, 0x5c),
    RGBColor(0x0c, 0x85, 0x99),
    RGBColor(0x9a, 0x67, 0x00),
    RGBColor(0x4f, 0x59, 0x66),
];
const GRID: RGBColor = RGBColor(0xe3, 0xe7, 0xec);
const QUIET: RGBColor = RGBColor(0x66, 0x70, 0x7c);

/// Writes training and validation loss of the runs over steps.
///
/// # Errors
/// No run has a finite loss, or the file cannot be written.
pub fn write_png(path: &Path, runs: &[History]) -> Result<()> {
    let failed = |error: String| Error::failed(format!("cannot draw {}: {error}", path.display()));
    let mut pixels = vec![0; (SIZE.0 * SIZE.1 * 3) as usize];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, SIZE).into_drawing_area();
        draw(&area, runs)?.map_err(failed)?;
    }
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, SIZE.0, SIZE.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let written = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(&pixels)?;
        writer.finish()
    });
    written.map_err(|error| failed(error.to_string()))?;
    replace_file(path, &bytes)
}

/// Points of a curve: (step, loss), where finite.
fn points<'a>(steps: &'a [u64], losses: &'a [f32]) -> impl Iterator<Item = (f64, f64)> + Clone + 'a {
    let points = steps.iter().zip(losses).map(|(step, loss)| (*step as f64, f64::from(*loss)));
    points.filter(|(_, loss)| loss.is_finite())
}

/// From the least to the largest, with some room.
fn range(values: impl Iterator<Item = f64>) -> Option<std::ops::Range<f64>> {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    let room = 0.04 * if high > low { high - low } else { high.abs().max(1.0) };
    (low <= high).then_some(low - room..high + room)
}

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// The outer error is the user's, the inner one the drawing library's.
fn draw(area: &Area, runs: &[History]) -> Result<std::result::Result<(), String>> {
    let all = || {
        runs.iter().flat_map(|run| {
            let validation = &run.curves.validation;
            points(&run.curves.step, &run.curves.loss).chain(points(&validation.step, &validation.loss))
        })
    };
    let (Some(steps), Some(losses)) = (range(all().map(|point| point.0)), range(all().map(|point| point.1))) else {
        return Err(Error::input("no run has a loss yet: there is nothing to draw"));
    };
    Ok(draw_within(area, runs, steps, losses).map_err(|error| error.to_string()))
}

fn draw_within(
    area: &Area,
    runs: &[History],
    steps: std::ops::Range<f64>,
    losses: std::ops::Range<f64>,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    let font = include_bytes!("../../assets/report/font/DejaVuSans-latin.ttf");
    if !REGISTERED.get_or_init(|| register_font(FONT, FontStyle::Normal, font).is_ok()) {
        return Err("its letters cannot be read".into());
    }
    area.fill(&WHITE)?;
    let text = |colour: RGBColor| (FONT, TEXT).into_font().color(&colour);
    let mut chart = ChartBuilder::on(area)
        .margin(18)
        .x_label_area_size(48)
        .y_label_area_size(76)
        .build_cartesian_2d(steps.start.max(0.0)..steps.end, losses)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .label_style(text(QUIET))
        .x_desc("step")
        .y_desc("loss, nats per token")
        .x_label_formatter(&|step| super::table::thousands(step.round() as u64))
        .y_label_formatter(&|loss| format!("{loss:.2}"))
        .draw()?;
    for (index, run) in runs.iter().enumerate() {
        let colour = |index: usize| COLOURS[index % COLOURS.len()];
        let (train, of_validation) = (colour(index), if runs.len() == 1 { colour(1) } else { colour(index) });
        let (name, validation) = (&run.name, &run.curves.validation);
        chart
            .draw_series(LineSeries::new(points(&run.curves.step, &run.curves.loss), train.stroke_width(2)))?
            .label(if runs.len() == 1 { format!("{name}: train") } else { name.clone() })
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], train.stroke_width(3)));
        let circles = points(&validation.step, &validation.loss);
        let drawn = chart.draw_series(circles.map(|at| Circle::new(at, 4, of_validation.stroke_width(2))))?;
        if runs.len() == 1 && !validation.step.is_empty() {
            drawn.label("validation").legend(move |(x, y)| Circle::new((x + 11, y), 4, of_validation.stroke_width(2)));
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(text(BLACK))
        .background_style(WHITE.mix(0.8))
        .border_style(GRID)
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_png_has_the_colours_of_its_curves() {
        let dir = tempfile::tempdir().unwrap();
        let line = |step: u64, loss: &str| {
            format!(
                "{{\"step\":{step},\"loss\":{loss},\"lr\":1e-3,\"grad_norm\":1,\"loss_scale\":1,\"skipped\":false,\
                 \"tokens\":{step},\"tokens_per_s\":1,\"mfu\":null,\"seconds\":1}}\n"
            )
        };
        let text = line(1, "5.0") + &line(2, "null") + &line(3, "1.0") + "{\"step\":3,\"val_loss\":1.5}\n";
        std::fs::write(dir.path().join("metrics.jsonl"), text).unwrap();
        let run = History::read(dir.path()).unwrap();
        let path = dir.path().join("loss.png");
        write_png(&path, std::slice::from_ref(&run)).unwrap();
        let file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
        let mut reader = png::Decoder::new(file).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), SIZE);
        let count =
            |colour: RGBColor| pixels.chunks(3).filter(|pixel| *pixel == [colour.0, colour.1, colour.2]).count();
        assert!(count(COLOURS[0]) > 1000 && count(COLOURS[1]) > 10 && count(COLOURS[2]) == 0);
        let dark = pixels.chunks(3).filter(|pixel| pixel.iter().all(|channel| *channel < 100)).count();
        assert!(dark > 100, "letters: {dark}");

        std::fs::write(dir.path().join("metrics.jsonl"), line(1, "null")).unwrap();
        let empty = History::read(dir.path()).unwrap();
        assert_eq!(write_png(&path, &[empty]).unwrap_err().exit_code(), 2);
    }
}
