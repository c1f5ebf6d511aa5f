package peer;

import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.util.Arrays;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.servlet.mvc.method.annotation.SseEmitter;

/** Spring Boot on its embedded Tomcat; how it stops is said in application.properties. */
@SpringBootApplication
@RestController
public class Server {
  private static final byte[] CHUNK = new byte[64 * 1024];

  static {
    Arrays.fill(CHUNK, (byte) 'x');
  }

  private final ScheduledExecutorService ticks = Executors.newSingleThreadScheduledExecutor();

  public static void main(String[] arguments) {
    SpringApplication.run(Server.class, arguments);
  }

  @GetMapping({"/", "/fast"})
  String ok() {
    return "ok";
  }

  @GetMapping("/slow")
  String slow(@RequestParam long ms) throws InterruptedException {
    Thread.sleep(ms);
    return "ok";
  }

  @GetMapping("/big")
  void big(@RequestParam int mib, HttpServletResponse response) throws IOException {
    long length = (long) mib << 20;
    response.setContentLengthLong(length);
    for (long left = length; left > 0; left -= CHUNK.length) {
      response.getOutputStream().write(CHUNK);
    }
  }

  @GetMapping("/events")
  SseEmitter events() {
    // Without a limit: it ends when its client goes, or the server.
    SseEmitter emitter = new SseEmitter(0L);
    ticks.scheduleAtFixedRate(() -> send(emitter), 0, 20, TimeUnit.MILLISECONDS);
    return emitter;
  }

  private static void send(SseEmitter emitter) {
    try {
      emitter.send("more");
    } catch (IOException gone) {
      // The container completes the request; this ends its ticks.
      throw new UncheckedIOException(gone);
    }
  }

  @PostMapping("/upload")
  String upload(InputStream body) throws IOException {
    return "got " + body.transferTo(OutputStream.nullOutputStream());
  }
}
